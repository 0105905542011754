"""Real processes that misbehave, and the reaction of the fleet to each."""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from msgspec import structs

from gpufc.config import BackendKind, Config, ModelConfig
from gpufc.errors import EngineUnavailable, NotFound
from gpufc.ids import RequestNo, WorkerName
from gpufc.protocol import PROTOCOL_VERSION, Cancel, Generate, Step
from gpufc.sampling import SamplingParams
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.ladder import Timings
from supervisor.fleet.port import ConditionStatus, WorkerHandle
from supervisor.runtime_dir import RuntimeDir
from tests.leaks import nothing_leaks
from tests.supervisor.fleet.conftest import (
    LIMIT_S,
    QUICK,
    Recorder,
    Started,
    StartFleet,
    end,
)

WRONG_VERSION = f"protocol {PROTOCOL_VERSION + 1}, the front {PROTOCOL_VERSION}"
PATIENT = structs.replace(QUICK, shutdown_s=60.0)
"""A Python child on a busy machine has the time to end when it is asked to."""
TURNS_TO_NOTICE = 5
"""Of the event loop: the pidfd is readable, the runner takes its event and handles it."""


def generate(worker: WorkerHandle, request: int = 1) -> None:
    worker.send(
        Generate(
            epoch=worker.epoch,
            request=RequestNo(request),
            request_id="r",  # type: ignore[arg-type]
            choice=0,
            prompt_tokens=(1,),
            sampling=SamplingParams(seed=1),
        )
    )


def trouble(worker: WorkerHandle, number: int) -> None:
    """See `child_worker._trouble`."""
    worker.send(Cancel(worker.epoch, RequestNo(number)))


async def first_token(started: Started, worker: WorkerHandle) -> None:
    seen = len(started.listener.messages)
    generate(worker)
    await started.listener.until(lambda: len(started.listener.messages) > seen)


async def test_becomes_ready_and_reports_what_was_obtained(start: StartFleet) -> None:
    started = await start("ready")
    assert started.fleet.condition().status is ConditionStatus.LOADING
    worker = await started.until_ready()
    status = started.status
    assert (worker.name, worker.model, worker.facts.n_ctx) == ("default-0", "tiny", 512)
    assert (status.state, status.epoch, status.restarts) == ("ready", 1, 0)
    assert psutil.pid_exists(status.pid)
    assert status.rss_bytes > 1_000_000
    assert started.fleet.condition().status is ConditionStatus.OK


async def test_heartbeat_shows_in_the_status(start: StartFleet) -> None:
    before = time.time()
    started = await start("ready")
    worker = await started.until_ready()
    await first_token(started, worker)  # sent after the heartbeat, on the same socket
    engine = started.status.engine
    assert (engine.n_running, engine.kv_cells_used) == (2, 77)
    assert before <= started.status.last_step_at <= time.time()


@pytest.mark.parametrize(
    ("behaviour", "reason", "seen"),
    [
        ("no_hello", Reason.START_TIMEOUT, signal.SIGABRT),
        ("wrong_token", Reason.START_TIMEOUT, signal.SIGABRT),
        ("wrong_pid", Reason.START_TIMEOUT, signal.SIGABRT),
        ("stuck_while_loading", Reason.LOAD_TIMEOUT, signal.SIGABRT),
        ("garbage_after_hello", Reason.PROTOCOL_ERROR, signal.SIGKILL),
        ("segfault_while_loading", Reason.CRASHED, signal.SIGSEGV),
    ],
)
async def test_never_ready_latches_failed(
    start: StartFleet, behaviour: str, reason: Reason, seen: int
) -> None:
    limits = {Reason.START_TIMEOUT: (1.0, 60.0), Reason.LOAD_TIMEOUT: (60.0, 0.5)}
    start_s, load_s = limits.get(reason, (60.0, 60.0))
    started = await start(behaviour, timings=Timings(start_s=start_s, load_s=load_s, dump_s=60.0))
    await started.until_state("failed")
    assert started.status.restarts == 2
    assert (started.status.last_exit.reason, started.status.last_exit.signal) == (reason, seen)
    assert started.fleet.condition().status is ConditionStatus.FAILED
    assert "3 starts in a row" in started.fleet.condition().detail
    assert started.listener.calls == []


async def test_exit_code_while_loading(start: StartFleet) -> None:
    started = await start("exit_3_while_loading")
    await started.until_state("failed")
    assert (started.status.last_exit.reason, started.status.last_exit.code) == ("exited", 3)


@pytest.mark.parametrize(
    ("behaviour", "text"),
    [("load_failed", "no such file"), ("wrong_version", WRONG_VERSION)],
)
async def test_what_would_fail_again_is_not_retried(
    start: StartFleet, behaviour: str, text: str
) -> None:
    started = await start(behaviour)
    await started.until_state("failed")
    assert started.status.restarts == 0
    assert text in started.fleet.condition().detail


async def test_an_abort_for_lack_of_device_memory_says_so(start: StartFleet) -> None:
    started = await start("ready")
    trouble(await started.until_ready(), 8)
    await started.until_ready(2)
    last = started.status.last_exit
    assert (last.reason, last.signal) == (Reason.CRASHED, signal.SIGABRT)
    assert last.detail == "WARNING CUDA error: out of memory"


async def test_strangers_are_dropped_and_the_worker_serves(start: StartFleet) -> None:
    started = await start("garbage_before_hello")
    await first_token(started, await started.until_ready())
    assert started.status.restarts == 0


@pytest.mark.parametrize(
    ("number", "reason", "seen"),
    [
        (1, Reason.CRASHED, signal.SIGSEGV),
        (2, Reason.PROTOCOL_ERROR, signal.SIGKILL),
        (4, Reason.CRASHED, signal.SIGABRT),
        (5, Reason.PROTOCOL_ERROR, signal.SIGKILL),
    ],
)
async def test_death_after_a_token_is_repaired_at_once(
    start: StartFleet, number: int, reason: Reason, seen: int
) -> None:
    started = await start("ready")
    worker = await started.until_ready()
    await first_token(started, worker)
    trouble(worker, number)
    second = await started.until_ready(2)
    assert started.listener.calls == ["ready 1", "message 1", "lost 1", "ready 2"]
    assert second.epoch == 2
    assert started.listener.lost[0].reason is reason
    assert (started.status.last_exit.reason, started.status.last_exit.signal) == (reason, seen)
    assert started.fleet.restarts_total == {reason: 1}


async def test_exit_zero_unasked_is_a_death(start: StartFleet) -> None:
    started = await start("ready")
    worker = await started.until_ready()
    await first_token(started, worker)
    trouble(worker, 7)
    await started.until_ready(2)
    assert (started.listener.lost[0].reason, started.listener.lost[0].code) == ("exited", 0)


async def test_message_of_another_epoch_is_dropped(start: StartFleet) -> None:
    started = await start("ready")
    worker = await started.until_ready()
    trouble(worker, 3)  # one of the epoch before, then one of this
    await started.listener.until(lambda: started.listener.messages)
    (step,) = started.listener.messages
    assert isinstance(step, Step)
    assert step.deltas[0].request == 10


async def test_flood_does_not_starve_the_loop(start: StartFleet) -> None:
    started = await start("ready")
    worker = await started.until_ready()
    trouble(worker, 6)
    await started.listener.until(lambda: len(started.listener.messages) >= 5000)
    requests = [m.deltas[0].request for m in started.listener.messages if isinstance(m, Step)]
    assert requests == list(range(5000))


async def test_a_kill_is_noticed_in_the_loops_next_turns_and_repaired(start: StartFleet) -> None:
    """No timer and no poll lies between the end of the process and `worker_lost`: the loop stands
    still until the process has ended, and then needs a few turns. `scripts/chaos --returns`
    measures the milliseconds."""
    started = await start("ready")
    for n in range(1, 6):
        worker = await started.until_ready(n)
        await first_token(started, worker)
        end(started.status.pid)
        assert len(started.listener.lost) == n - 1
        for _ in range(TURNS_TO_NOTICE):
            await asyncio.sleep(0)
        assert len(started.listener.lost) == n
        assert started.fleet.condition().status is ConditionStatus.RESTARTING
    await started.until_ready(6)
    assert {reason.reason for reason in started.listener.lost} == {Reason.KILLED}


async def test_sending_to_a_dead_worker_does_nothing(start: StartFleet) -> None:
    started = await start("ready")
    worker = await started.until_ready()
    await first_token(started, worker)
    os.kill(started.status.pid, signal.SIGKILL)
    generate(worker)
    await started.until_ready(2)
    generate(worker)


async def test_restart_limit_latches_failed_and_restart_clears_it(start: StartFleet) -> None:
    started = await start("ready", restart_limit=2)
    for n in (1, 2):
        await first_token(started, await started.until_ready(n))
        os.kill(started.status.pid, signal.SIGKILL)
    await started.until_state("failed")
    assert "died 2 times" in started.fleet.condition().detail
    await started.fleet.restart(None, now=False)
    assert started.status.state == "ready"


@pytest.mark.parametrize("now", [False, True])
async def test_restart_replaces_the_process(start: StartFleet, now: bool) -> None:
    started = await start("ready", timings=PATIENT)
    await started.until_ready()
    before = started.status
    await started.fleet.restart(WorkerName("default-0"), now=now)
    assert started.status.pid != before.pid
    assert not psutil.pid_exists(before.pid)
    assert started.status.state == "ready"
    in_between = ["lost 1", "ready 2"] if now else ["ready 2", "lost 1"]
    assert started.listener.calls == ["ready 1", *in_between]
    assert started.listener.lost[0].reason is Reason.RESTARTED
    exit_ = started.status.last_exit
    assert (exit_.signal, exit_.code) == ((9, None) if now else (None, 0))


async def test_restart_of_an_unknown_worker(start: StartFleet) -> None:
    started = await start("ready")
    with pytest.raises(NotFound):
        await started.fleet.restart(WorkerName("absent-7"), now=False)


async def test_restart_that_fails_says_why(start: StartFleet) -> None:
    started = await start("load_failed")
    await started.until_state("failed")
    with pytest.raises(EngineUnavailable, match="no such file"):
        await started.fleet.restart(None, now=False)


@pytest.mark.parametrize("behaviour", ["ready", "ignores_all", "stuck_while_loading", "no_hello"])
async def test_stop_leaves_nothing(start: StartFleet, behaviour: str) -> None:
    started = await start(behaviour)
    wanted = {"ready": "ready", "ignores_all": "ready", "stuck_while_loading": "loading"}
    await started.until_state(wanted.get(behaviour, "starting"))
    await started.listener.until(lambda: started.status.pid)
    pid = started.status.pid
    await started.fleet.stop()
    assert not psutil.pid_exists(pid)
    assert list(started.runtime.path.glob("*.sock")) == []
    assert started.fleet.condition().status is ConditionStatus.DRAINING


async def test_stop_now_overtakes_a_patient_stop(start: StartFleet) -> None:
    started = await start("ignores_all", timings=PATIENT)
    await started.until_ready()
    first = asyncio.create_task(started.fleet.stop())
    await started.until_state("stopping")
    await started.fleet.stop(now=True)
    await asyncio.wait_for(first, 60)
    assert started.status.last_exit.signal == signal.SIGKILL


async def test_what_a_worker_prints_stands_in_its_log(start: StartFleet) -> None:
    started = await start("prints")
    await started.until_ready()
    assert "to stdout\n" in started.log
    assert "to stderr\n" in started.log


async def test_a_workers_own_children_end_with_it(start: StartFleet) -> None:
    started = await start("with_a_child")
    await started.until_ready()
    helper = psutil.Process(int(started.log.split()[1]))
    os.kill(started.status.pid, signal.SIGKILL)
    await started.listener.until(lambda: started.listener.lost)
    await asyncio.to_thread(_wait_gone, helper)


def _wait_gone(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.status() != psutil.STATUS_ZOMBIE:  # no process may reap it
            time.sleep(0.005)


async def test_environment_and_descriptors_are_scrubbed(
    start: StartFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUFC_API_KEY", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("CUDA_SECRET_TOKEN", "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    started = await start("shows_environment")
    await started.until_ready()
    assert "secret" not in started.log
    assert "env CUDA_VISIBLE_DEVICES=\n" in started.log
    (line,) = [line for line in started.log.splitlines() if line.startswith("fds")]
    inherited = [fd for fd in line[5:-1].split(", ") if int(fd) > 2]
    # the boot pipe, descriptors of the child's own zmq, the listing itself: none of the front's
    assert len(inherited) <= 9, line


async def test_twenty_restarts_leak_nothing(start: StartFleet) -> None:
    started = await start("ready")
    await first_token(started, await started.until_ready())
    with nothing_leaks():
        for n in range(2, 22):
            os.kill(started.status.pid, signal.SIGKILL)
            await first_token(started, await started.until_ready(n))
    assert len(list(started.runtime.path.glob("w-*.sock"))) == 1
    assert started.fleet.restarts_total == {Reason.KILLED: 20}


async def test_the_real_worker_with_a_scripted_backend(runtime: RuntimeDir) -> None:
    listener = Recorder()
    config = Config(models={"default": ModelConfig(backend=BackendKind.FAKE)})
    fleet = Fleet(config, runtime, listener, timings=PATIENT)
    started = Started(fleet, listener, runtime)
    await fleet.start()
    try:
        await first_token(started, await started.until_ready())
        await fleet.restart(None)
        assert started.status.last_exit.code == 0
    finally:
        await fleet.stop()
    assert started.status.last_exit.code == 0


def test_a_worker_ends_with_a_killed_front(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    front = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.child_front", str(tmp_path / "r")],
        cwd=root,
        stdout=subprocess.PIPE,
    )
    with front:
        assert front.stdout is not None
        pidfd = os.pidfd_open(int(front.stdout.readline()))
        front.kill()
        assert select.select([pidfd], [], [], LIMIT_S)[0]
        os.close(pidfd)
