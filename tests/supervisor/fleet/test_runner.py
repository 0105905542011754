"""The runner against a fake process and a fake link: order, timers, boundaries."""

import asyncio
import errno
import itertools
import random
import signal
from collections.abc import AsyncIterator

import pytest

from gpufc.config import ModelConfig
from gpufc.errors import LinkError
from gpufc.ids import Epoch, RequestNo, WorkerName
from gpufc.protocol import (
    Boot,
    Delta,
    Hello,
    LoadFailed,
    Shutdown,
    Step,
)
from supervisor.fleet import events as ev
from supervisor.fleet.crash_record import CrashRecord
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.incarnation import Incarnation
from supervisor.fleet.ladder import Timings
from supervisor.fleet.lifecycle import WorkerLifecycle
from supervisor.fleet.port import WorkerHandle, WorkerMessage
from supervisor.fleet.restart_policy import RestartPolicy
from supervisor.fleet.runner import WorkerRunner
from supervisor.fleet.states import WorkerState
from supervisor.fleet.watchdog import LIMITS, WatchLimits
from supervisor.fleet.worker import Hooks, WorkerSpec
from tests.fakes.child_worker import ready
from tests.fakes.facts import model_facts
from tests.supervisor.fleet.conftest import Recorder
from tests.supervisor.fleet.fake_edge import KILLED, FakeEdge, FakeLink, FakePlacer, FakeProcess


class Bench:
    def __init__(
        self, timings: Timings, limits: WatchLimits = LIMITS, placer: FakePlacer | None = None
    ) -> None:
        self.edge = FakeEdge()
        self.listener = Recorder()
        self.restarts: list[Reason] = []
        self.crashes: list[CrashRecord] = []
        epochs = itertools.count(1)
        self.life = WorkerLifecycle(
            RestartPolicy(100, random.Random(1)),
            timings,
            lambda: Epoch(next(epochs)),
            is_placed=placer is not None,
        )
        spec = WorkerSpec(
            name=WorkerName("default-0"),
            model="m",
            config=ModelConfig(model_path="/m.gguf"),
            n_sequences=4,
            log_level="info",
        )
        hooks = Hooks(restarted=self.restarts.append, crashed=self.crashes.append)
        incarnation = Incarnation(
            spec,
            lambda spec, heard, _: WorkerRunner(
                spec, self.life, self.edge, heard, hooks, limits, placer
            ),
            lambda: self.listener,
            is_heard=True,
            changed=lambda: None,
            lost=lambda *_: None,
        )
        self.runner = incarnation.runner
        self.task = asyncio.create_task(self.runner.run())
        self.runner.post(ev.Adopted())  # no trial
        self.runner.post(ev.StartRequested())

    async def until(self, state: WorkerState, epoch: int = 1) -> None:
        async with asyncio.timeout(60):
            await self.runner.wait_until(
                lambda: self.life.state is state and self.life.epoch == epoch
            )

    async def up(self, epoch: int = 1) -> FakeLink:
        await self.until(WorkerState.STARTING, epoch)
        link = self.edge.links[-1]
        link.say(Hello(link.epoch, 1, "", 0))
        link.say(ready(link.epoch))
        await self.until(WorkerState.READY, epoch)
        return link


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench(Timings())
    yield bench
    bench.task.cancel()


def step(epoch: int, *tokens: int) -> Step:
    return Step(Epoch(epoch), 1, (Delta(RequestNo(1), 0, tokens, ""),))


async def test_boot_message_says_who_and_where(bench: Bench) -> None:
    await bench.until(WorkerState.STARTING)
    (process,), (link,) = bench.edge.processes, bench.edge.links
    assert process.booted is not None
    assert (process.booted.endpoint, process.booted.epoch) == (link.endpoint, 1)
    assert len(process.booted.token) == 32
    assert link.expected == process.pid


async def test_steps_reach_the_listener_without_waiting_for_the_queue(bench: Bench) -> None:
    link = await bench.up()
    link.say(step(1, 5))
    assert bench.listener.calls == ["ready 1", "message 1"]


async def test_nothing_is_heard_before_ready_or_after_lost(bench: Bench) -> None:
    await bench.until(WorkerState.STARTING)
    (link,) = bench.edge.links
    link.say(step(1, 5))
    link = await bench.up()
    link.say(step(1, 5))
    link.broken("garbage", True)
    link.say(step(1, 6))  # the verdict is in the queue: it may still pass
    await bench.until(WorkerState.STARTING, 2)
    link.say(step(1, 7))
    assert bench.listener.calls == ["ready 1", "message 1", "message 1", "lost 1"]


async def test_last_words_are_heard_before_the_loss(bench: Bench) -> None:
    link = await bench.up()
    link.last_words = [step(1, 5)]
    bench.edge.processes[0].exit(KILLED)
    await bench.until(WorkerState.STARTING, 2)
    assert bench.listener.calls == ["ready 1", "message 1", "lost 1"]
    assert link.closed
    assert bench.restarts == [Reason.KILLED]


async def test_a_worker_that_begins_to_end_is_lost_before_it_is_gone(bench: Bench) -> None:
    link = await bench.up()
    (process,) = bench.edge.processes
    assert process.is_watched
    assert process.ending is not None
    link.last_words = [step(1, 5)]
    process.exit = lambda _: None  # its memory takes time to be given back
    process.ending(KILLED)
    await bench.until(WorkerState.STOPPING)
    assert bench.listener.calls == ["ready 1", "message 1", "lost 1"]
    assert bench.restarts == []


async def test_a_reason_that_comes_after_the_exit_still_counts(bench: Bench) -> None:
    await bench.until(WorkerState.STARTING)
    (link,) = bench.edge.links
    link.say(Hello(Epoch(1), 1, "", 0))
    await bench.until(WorkerState.LOADING)
    bench.edge.processes[0].exit(KILLED)
    link.last_words = [LoadFailed(Epoch(1), "corrupt", retryable=False)]
    await bench.until(WorkerState.FAILED)
    assert "corrupt" in bench.life.detail


async def test_shutdown_goes_over_the_link_and_the_handle_sends_too(bench: Bench) -> None:
    link = await bench.up()
    (worker,) = bench.listener.ready
    worker.send(Shutdown(worker.epoch))
    bench.runner.post(ev.StopRequested())
    await bench.until(WorkerState.STOPPING)
    assert link.sent == [Shutdown(Epoch(1))] * 2


async def test_timers_climb_the_ladder() -> None:
    bench = Bench(Timings(shutdown_s=0.01, terminate_s=0.01))
    await bench.up()
    bench.runner.post(ev.StopRequested())
    await bench.until(WorkerState.STOPPED)
    assert bench.edge.processes[0].signals == [signal.SIGTERM, signal.SIGKILL]
    bench.task.cancel()


async def test_a_spawn_that_fails_is_tried_again() -> None:
    bench = Bench(Timings())
    bench.edge.refuse = BlockingIOError("no more processes")
    await bench.until(WorkerState.BACKOFF)
    assert bench.edge.links[0].closed
    bench.edge.refuse = None
    await bench.up(2)
    bench.task.cancel()


async def test_a_boot_message_that_cannot_be_written_is_not_retried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: FakeProcess, boot: Boot) -> None:
        raise LinkError("too large")

    monkeypatch.setattr(FakeProcess, "boot", refuse)
    bench = Bench(Timings())
    await bench.until(WorkerState.FAILED)
    assert bench.edge.processes[0].signals == [signal.SIGKILL]
    bench.task.cancel()


async def test_a_listener_that_raises_stops_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Recorder, worker: WorkerHandle, message: WorkerMessage) -> None:
        raise ValueError("defect of dispatch")

    monkeypatch.setattr(Recorder, "worker_message", fail)
    link = await bench.up()
    link.say(step(1, 5))
    bench.edge.processes[0].exit(KILLED)
    await bench.up(2)
    assert "defect of dispatch" in caplog.text


async def test_a_defect_ends_the_worker_and_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    link = await bench.up()
    bench.runner.post(ev.StartRequested())  # illegal: it runs
    async with asyncio.timeout(60):
        await bench.runner.wait_until(lambda: False)
    assert bench.listener.calls == ["ready 1", "lost 1"]
    assert bench.listener.lost[0].reason is Reason.INTERNAL_ERROR
    assert bench.edge.processes[0].signals == [signal.SIGKILL]
    assert link.closed
    assert "start of a running worker" in bench.runner.status().detail
    await bench.task


async def test_status_row(bench: Bench) -> None:
    await bench.up()
    row = bench.runner.status()
    assert (row.name, row.pid, row.epoch, row.model, row.model_path) == (
        "default-0",
        100,
        1,
        "m",
        "/m.gguf",
    )
    assert (row.facts, row.rss_bytes, row.loading_fraction) == (model_facts(), 7, 1.0)


async def test_an_unwanted_end_is_recorded_and_a_wanted_one_is_not(bench: Bench) -> None:
    await bench.up()
    bench.runner.post(ev.RestartRequested(now=True))
    await bench.until(WorkerState.STARTING, 2)
    bench.runner.post(ev.Adopted())
    await bench.up(2)
    assert bench.crashes == []
    bench.edge.processes[1].exit(KILLED)
    await bench.until(WorkerState.BACKOFF, 2)
    (record,) = bench.crashes
    assert (record.worker, record.epoch, record.pid, record.signal) == ("default-0", 2, 101, 9)
    assert record.log == ("default-0 printed this since 5",)
    assert record.was_ready


async def test_the_process_that_ended_is_recorded_and_logged_with_its_reason(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    link = await bench.up()
    link.say(step(1, 5))  # it has produced a token: the next one is started at once
    bench.edge.processes[0].exit(KILLED)
    await bench.up(2)
    assert [(record.epoch, record.pid) for record in bench.crashes] == [(1, 100)]
    assert "worker_ended worker=default-0 epoch=1 pid=100: killed (SIGKILL)" in caplog.text


async def test_silence_is_answered_with_a_dump_and_the_worker_is_replaced() -> None:
    bench = Bench(Timings(dump_s=0.01), WatchLimits(silence_s=0.2))
    await bench.up()
    await bench.until(WorkerState.BACKOFF)
    abort = [signal.SIGCONT, signal.SIGABRT, signal.SIGKILL]
    assert bench.edge.processes[0].signals == abort
    assert bench.listener.lost[0].reason is Reason.HUNG
    assert bench.crashes[0].reason is Reason.HUNG
    bench.task.cancel()


async def test_a_start_that_the_system_refuses_is_not_held_against_the_worker(
    bench: Bench,
) -> None:
    await bench.up()
    bench.edge.refuse = OSError(errno.EMFILE, "Too many open files")
    bench.edge.processes[0].exit(KILLED)
    for _ in range(4):  # more often than a worker may fail to become ready
        await bench.until(WorkerState.BACKOFF, bench.life.epoch)
        bench.runner.post(ev.RestartRequested())
        refused_at = bench.life.epoch
        await bench.runner.wait_until(lambda at=refused_at: bench.life.epoch > at)
    assert "the system refuses a start" in bench.runner.condition().detail
    bench.edge.refuse = None
    bench.runner.post(ev.RestartRequested())
    await bench.runner.wait_until(lambda: bench.life.state is WorkerState.STARTING)


@pytest.fixture
async def placed() -> AsyncIterator[Bench]:
    """A line on other machines, whose processes have no pid before their hello."""
    bench = Bench(Timings(), placer=FakePlacer())
    bench.edge.machine = "other"
    yield bench
    bench.task.cancel()


async def test_a_process_on_another_machine_waits_for_one_and_says_its_pid(placed: Bench) -> None:
    await placed.until(WorkerState.PLACING)
    placer = placed.runner._placer
    assert isinstance(placer, FakePlacer)
    placer.say("a machine with a GPU")
    async with asyncio.timeout(60):
        await placed.runner.wait_until(lambda: placed.runner.awaited is not None)
    assert placed.runner.condition().detail == "a machine with a GPU"
    placer.say(None)
    await placed.until(WorkerState.STARTING)
    (process,), (link,) = placed.edge.processes, placed.edge.links
    assert (process.booted is not None, link.expected) == (True, None)
    link.say(Hello(Epoch(1), 1, "", 4711))
    link.say(ready(Epoch(1)))
    await placed.until(WorkerState.READY)
    row = placed.runner.status()
    assert (row.pid, row.machine) == (4711, "other")


async def test_a_start_that_its_machine_refuses_looks_for_another_machine(placed: Bench) -> None:
    await placed.until(WorkerState.PLACING)
    placer = placed.runner._placer
    assert isinstance(placer, FakePlacer)
    placer.say(None)
    await placed.until(WorkerState.STARTING)
    refused = ExitReason(reason=Reason.SPAWN_FAILED, at=0.0, detail="no such file")
    placed.edge.processes[0].exit(refused)
    await placed.until(WorkerState.PLACING, 2)
    assert placer.avoid == "no such file"
    assert placed.edge.links[0].closed
    assert placed.crashes == []


async def test_a_stop_ends_the_search_for_a_machine(placed: Bench) -> None:
    await placed.until(WorkerState.PLACING)
    placed.runner.post(ev.StopRequested())
    await placed.until(WorkerState.STOPPED)
    placer = placed.runner._placer
    assert isinstance(placer, FakePlacer)
    assert placer.told is None
