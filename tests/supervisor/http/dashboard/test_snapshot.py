"""The rows that the page gets, from the front's parts."""

import asyncio

import msgspec
import pytest
from msgspec import structs

from gpufc.facts import EngineDevice
from gpufc.ids import Epoch, RequestId, WorkerName
from gpufc.protocol import EnginePhase, EngineStatus
from supervisor.dispatch.losses import Loss
from supervisor.dispatch.request import Scope
from supervisor.fleet.crash_store import CrashSummary
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.http.dashboard import snapshot
from supervisor.http.dashboard.feed import encoded
from supervisor.http.dashboard.messages import Tick
from supervisor.http.edge.context import SERVICES
from tests.fakes.facts import model_facts
from tests.fakes.network import network_status
from tests.supervisor.access.test_keys import key
from tests.supervisor.dispatch.fakes import KILLED, MODEL, until, worker_status
from tests.supervisor.http.conftest import Service, running

WORKER = WorkerName("default-0")


def summary(epoch: int, at: float) -> CrashSummary:
    return CrashSummary(
        id=f"{int(at * 1000)}-default-0-{epoch}",
        worker=WORKER,
        epoch=Epoch(epoch),
        model=MODEL,
        at=at,
        reason=Reason.KILLED,
        signal=9,
        code=None,
        detail="",
        uptime_s=7.5,
    )


def loss(epoch: int, lost_at: float, reason: ExitReason = KILLED) -> Loss:
    return Loss(
        worker=WORKER, epoch=Epoch(epoch), model=MODEL, reason=reason, lost_at=lost_at, pauses=[]
    )


def taken(service: Service) -> Tick:
    return snapshot.tick(service.app[SERVICES], [])


async def test_an_idle_front_shows_its_model_and_its_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as service:
        service.fleet.start_worker()
        device = EngineDevice("CPU", "a processor", "cpu", 1, 2)
        status = structs.replace(
            worker_status("default-0"),
            facts=model_facts(devices=(device,), kv_cells=100),
            engine=EngineStatus(EnginePhase.DECODE, 7, 1.0, 2, 2, 0, kv_cells_used=9),
        )
        monkeypatch.setattr(service.fleet, "workers", lambda: [status])
        tick = taken(service)
    (model,), (worker,) = tick.models, tick.workers
    assert (model.name, model.state, model.architecture) == (MODEL, "ready", "fake")
    assert (worker.kv_used, worker.kv_cells, worker.devices) == (9, 100, ("a processor",))
    assert (tick.point.kv_used, tick.point.kv_cells, tick.requests) == (9, 100, ())
    assert tick.status == "ok"


async def test_an_open_request_shows_no_word_of_what_it_asks() -> None:
    async with running(slots=1) as service:
        worker = service.fleet.start_worker(auto=False)
        asking = [service.complete(prompt="a secret"), service.complete(prompt="another")]
        streams = service.dispatcher.open_requests
        tasks = [asyncio.ensure_future(one) for one in asking]
        await until(lambda: len(list(streams())) == 2 and worker.active)
        worker.step()
        tick = taken(service)
        first, second = tick.requests
        assert (first.stage, first.n_generated, first.worker) == ("running", 1, WORKER)
        assert first.first_token_at is not None
        assert (second.stage, second.worker, tick.n_requests) == ("ready", None, 2)
        assert b"secret" not in encoded(tick)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_a_loss_and_its_record_are_one_row_with_its_streams() -> None:
    clock = snapshot.Clock(1000.0)
    lost = loss(2, 995.0)
    lost.n_sequences = 2
    lost.went_on(RequestId("r"), 994.0, 996.5)
    (row,) = snapshot.death_rows([lost], [summary(2, clock.unix(995.0))], clock)
    assert (row.record, row.signal, row.uptime_s) == (summary(2, row.at).id, 9, 7.5)
    assert (row.n_streams, row.n_went_on, row.n_waiting) == (2, 1, 1)
    assert row.longest_pause_s == 2.5
    (pause,) = row.pauses
    assert (pause.request, pause.ended_at) == ("r", clock.unix(996.5))


def test_records_of_an_earlier_front_are_rows_without_streams_newest_first() -> None:
    clock = snapshot.Clock(1000.0)
    old = summary(2, clock.at - 5000)
    rows = list(snapshot.death_rows([loss(2, 999.0), loss(3, 999.5)], [old], clock))
    assert [(row.epoch, row.n_streams) for row in rows] == [(3, 0), (2, 0), (2, None)]
    assert rows[2].record == old.id


def test_old_losses_lose_their_pauses_and_keep_their_counts() -> None:
    clock = snapshot.Clock(1000.0)
    lost = loss(1, 1000.0 - snapshot.RECENT_S - 1)
    lost.n_sequences = 1
    lost.went_on(RequestId("r"), None, lost.lost_at + 1)
    (row,) = snapshot.death_rows([lost], [], clock)
    assert (row.pauses, row.n_went_on, row.longest_pause_s) == ((), 1, 1.0)


def test_keys_are_shown_without_their_digests() -> None:
    (row,) = snapshot.keys([key("ci", scopes=(Scope.READ,))]).rows
    assert (row.name, row.scopes) == ("ci", (Scope.READ,))
    assert not hasattr(row, "sha256")


async def test_the_network_is_shown_with_the_models_that_the_viewer_may_see() -> None:
    async with running() as service:
        front = service.app[SERVICES]
        assert snapshot.tick(front, []).network is None
        tick = snapshot.tick(structs.replace(front, network=network_status), [])
    (event,) = (line for line in encoded(tick).splitlines() if line.startswith(b"data: "))
    assert msgspec.json.decode(event.removeprefix(b"data: "))["network"] == {
        "server": "control.example:17000",
        "client_id": "0011…eeff",
        "phase": "online",
        "models": ["mine", "other"],
        "logged_in_at": 1.0,
        "last_heartbeat_at": 2.0,
        "tasks_running": 3,
        "connections": 6,
        "tasks": {"succeeded": 4, "generated_tokens": 5},
    }
    shown = snapshot.shown_to(tick, lambda model: model == "mine")
    assert isinstance(shown, Tick)
    assert shown.network is not None
    assert shown.network.models == ("mine",)
