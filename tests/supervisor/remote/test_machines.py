"""Lines of workers on machines that come and go: a runner against a fake host."""

import asyncio
import itertools
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gpufc.config import ModelConfig
from gpufc.ids import Epoch, WorkerName
from gpufc.protocol import PROTOCOL_VERSION, Hello, LoadFailed, Shutdown
from supervisor.cluster.messages import (
    Forgo,
    HostVitals,
    Leave,
    Leaving,
    LinkBroken,
    NotObtained,
    Obtain,
    Obtained,
    Obtaining,
    SpawnFailed,
    Trouble,
    WorkerVitals,
)
from supervisor.cluster.wire import boot_digest
from supervisor.fleet import events as ev
from supervisor.fleet.crash_record import CrashRecord
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.ladder import Timings
from supervisor.fleet.lifecycle import WorkerLifecycle
from supervisor.fleet.restart_policy import RestartPolicy
from supervisor.fleet.runner import WorkerRunner
from supervisor.fleet.states import WorkerState
from supervisor.fleet.worker import Hooks, WorkerSpec
from supervisor.remote import process
from supervisor.remote.hosts import SHUN_S
from supervisor.remote.machines import Machines
from tests.fakes.child_worker import ready
from tests.supervisor.fleet.conftest import Recorder
from tests.supervisor.remote.fake_channel import FakeChannel, held, listening


class Line:
    """A runner with its lifecycle, whose processes run on the bench's machines."""

    def __init__(
        self, name: str, machines: Machines, epochs: Callable[[], Epoch], model_path: str
    ) -> None:
        self.listener = Recorder()
        self.crashes: list[CrashRecord] = []
        policy = RestartPolicy(100, random.Random(1))
        self.life = WorkerLifecycle(policy, Timings(), epochs, is_placed=True)
        self.spec = WorkerSpec(
            name=WorkerName(name),
            model="m",
            config=ModelConfig(model_path=model_path),
            n_sequences=4,
            log_level="info",
            is_remote=True,
        )
        edge = machines.edge()
        hooks = Hooks(crashed=self.crashes.append)
        self.runner = WorkerRunner(self.spec, self.life, edge, self.listener, hooks, placer=edge)
        self.task = asyncio.create_task(self.runner.run())
        self.runner.post(ev.Adopted())  # no trial
        self.runner.post(ev.StartRequested())

    async def until(self, state: WorkerState) -> None:
        async with asyncio.timeout(60):
            await self.runner.wait_until(lambda: self.life.state is state)

    async def until_it_waits(self) -> None:
        async with asyncio.timeout(60):
            await self.runner.wait_until(lambda: self.runner.awaited is not None)


class Bench:
    def __init__(self) -> None:
        self.now = 1000.0
        self.machines = Machines(1, 5.0, clock=lambda: self.now)
        self.lines: list[Line] = []
        numbers = itertools.count(1)
        self._epochs = lambda: Epoch(next(numbers))

    def line(self, name: str = "m-0", model_path: str = "/m.gguf") -> Line:
        """A line of a model that the front itself does not have, unless its file is given."""
        self.lines.append(Line(name, self.machines, self._epochs, model_path))
        return self.lines[-1]

    def host(self, machine: str, **options: object) -> FakeChannel:
        channel = FakeChannel(machine, self.machines, **options)  # type: ignore[arg-type]
        channel.heard_at = self.now
        channel.adoptions = list(self.machines.joined(channel))  # type: ignore[attr-defined]
        return channel

    async def ready_on(self, line: Line, channel: FakeChannel) -> Epoch:
        await line.until(WorkerState.STARTING)
        epoch = channel.bring_up()
        channel.say(ready(epoch))
        await line.until(WorkerState.READY)
        return epoch

    def close(self) -> None:
        self.machines.close()
        for line in self.lines:
            line.task.cancel()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


async def test_a_worker_waits_for_a_machine_and_then_serves_on_it(bench: Bench) -> None:
    line = bench.line()
    await line.until_it_waits()
    assert line.runner.awaited == "waiting for a machine: none has joined"
    host = bench.host("a")
    await bench.ready_on(line, host)
    row = line.runner.status()
    assert (row.machine, row.pid) == ("a", 100)
    assert line.listener.calls == ["ready 1"]


async def test_messages_go_both_ways_after_the_hello_only(bench: Bench) -> None:
    line, host = bench.line(), bench.host("a")
    epoch = await bench.ready_on(line, host)
    assert line.runner.worker is not None
    line.runner.worker.send(Shutdown(epoch))
    assert [number for number, _ in host.frames] == [epoch]


async def test_a_hello_of_another_pid_or_token_is_dropped(bench: Bench) -> None:
    line, host = bench.line(), bench.host("a")
    await line.until(WorkerState.STARTING)
    boot = host.spawns()[0].boot
    host.say(Hello(boot.epoch, PROTOCOL_VERSION, boot.token, 100))  # its pid is not known yet
    host._hosts.message(host, LinkBroken(Epoch(77), "of no one"))
    assert line.life.state is WorkerState.STARTING
    host.bring_up()
    await line.until(WorkerState.LOADING)


@pytest.mark.parametrize(("silent_s", "reason"), [(0.0, Reason.HOST_LOST), (5.1, Reason.NODE_LOST)])
async def test_a_lost_machine_loses_its_workers_at_once_and_others_take_over(
    bench: Bench, silent_s: float, reason: Reason
) -> None:
    line, first = bench.line(), bench.host("a")
    second_line = bench.line("m-1")
    await bench.ready_on(line, first)
    await second_line.until_it_waits()
    bench.now += silent_s
    first.lose("gone")
    assert line.life.state is WorkerState.READY  # its runner has not run yet
    await line.until_it_waits()
    assert line.listener.calls == ["ready 1", "lost 1"]
    last = line.runner.status().last_exit
    assert last is not None
    assert (last.reason, last.detail) == (reason, "a: gone")
    second = bench.host("b")
    await second_line.until(WorkerState.STARTING)
    assert len(second.spawns()) == 1


async def test_a_machine_that_comes_back_is_shunned_for_a_while(bench: Bench) -> None:
    line, host = bench.line(), bench.host("a")
    await bench.ready_on(line, host)
    other_line, other = bench.line("m-1"), bench.host("b")
    await bench.ready_on(other_line, other)
    host.lose()
    await line.until_it_waits()
    again = bench.host("a")
    await line.until_it_waits()
    assert again.spawns() == []
    bench.now += SHUN_S + 1
    bench.machines.changed()
    await bench.ready_on(line, again)


async def test_the_only_machine_is_used_as_soon_as_it_is_back(bench: Bench) -> None:
    line, host = bench.line(), bench.host("a")
    await bench.ready_on(line, host)
    host.lose()
    await line.until_it_waits()
    await bench.ready_on(line, bench.host("a"))


async def test_a_worker_that_its_host_brings_back_goes_on_without_a_load(bench: Bench) -> None:
    line, host = bench.line(), bench.host("a")
    await bench.ready_on(line, host)
    edge = bench.machines.edge()
    edge.place(Epoch(0), line.spec, listening([]))
    digest = edge.digest(None)
    edge.unplace()
    host.lose()
    await line.until_it_waits()
    again = bench.host("a", held=(held(line.spec.name, digest), held(line.spec.name, digest, 101)))
    (adoption,) = again.adoptions  # type: ignore[attr-defined]
    assert (adoption.pid, adoption.worker, adoption.epoch) == (100, "m-0", 2)
    again.say(Hello(adoption.epoch, PROTOCOL_VERSION, adoption.token, 100))  # at once
    again.say(ready(adoption.epoch))
    await line.until(WorkerState.READY)
    assert again.spawns() == []
    assert line.runner.status().pid == 100


async def test_a_worker_that_is_brought_back_to_a_line_that_stops_is_ended(bench: Bench) -> None:
    line = bench.line()
    await line.until_it_waits()
    line.runner.post(ev.StopRequested())
    digest = boot_digest(line.spec.boot(Epoch(1), "", ""))
    host = bench.host("a", held=(held(line.spec.name, digest),))
    assert len(host.adoptions) == 1  # type: ignore[attr-defined]
    await line.until(WorkerState.STOPPED)
    assert [(one.epoch, one.number) for one in host.signals()] == [(1, signal.SIGKILL)]
    assert host.listeners == {}
    assert bench.machines.hosts.free_slots("a") == [0]


async def test_an_idle_machine_does_not_load_what_another_brings_back(bench: Bench) -> None:
    line = bench.line()
    bench.machines.await_return(2.0)
    await line.until_it_waits()
    idle = bench.host("idle")
    digest = boot_digest(line.spec.boot(Epoch(1), "", ""))
    host = bench.host("a", held=(held(line.spec.name, digest),))
    assert len(host.adoptions) == 1  # type: ignore[attr-defined]
    assert idle.spawns() == []
    other = bench.line("m-1")  # its machine does not come back
    await other.until_it_waits()
    assert other.runner.awaited == "waiting for its machine to come back"
    bench.now += 2.0
    bench.machines.changed()
    await bench.ready_on(other, idle)


async def test_a_line_is_made_for_a_worker_that_a_host_still_has(bench: Bench) -> None:
    """The front before had loaded its model for a request, and was killed."""
    asked: list[str] = []

    def wants_line(worker: str) -> bool:
        asked.append(worker)
        return worker == "m-0"

    bench.machines.wants_line = wants_line
    bench.machines.await_return(2.0)
    config = ModelConfig(model_path="/m.gguf")
    spec = WorkerSpec(WorkerName("m-0"), "m", config, 4, "info", is_remote=True)
    digest = boot_digest(spec.boot(Epoch(1), "", ""))
    hello = FakeChannel("a", bench.machines, (held(spec.name, digest),)).hello
    other = FakeChannel("b", bench.machines, (held(WorkerName("gone-0"), digest),)).hello
    assert bench.machines.is_early(hello)
    assert not bench.machines.is_early(other)
    assert asked == ["m-0", "gone-0"]
    line = bench.line()
    await line.until_it_waits()
    assert not bench.machines.is_early(hello)
    host = bench.host("a", held=hello.held)
    assert len(host.adoptions) == 1  # type: ignore[attr-defined]


async def test_no_line_is_made_once_hosts_have_had_their_time_to_come_back(bench: Bench) -> None:
    bench.machines.wants_line = lambda worker: True
    bench.machines.await_return(2.0)
    hello = FakeChannel("a", bench.machines, (held(WorkerName("m-0"), "digest"),)).hello
    assert bench.machines.is_early(hello)
    bench.now += 2.0  # its model could not be loaded
    assert not bench.machines.is_early(hello)


async def test_a_worker_of_an_equal_epoch_is_not_adopted(bench: Bench) -> None:
    """Another front gave it that number: late answers to that front would count as this one's."""
    line = bench.line()
    await line.until_it_waits()
    digest = boot_digest(line.spec.boot(Epoch(1), "", ""))
    host = bench.host("a", held=(held(line.spec.name, digest, epoch=1),))
    assert host.adoptions == []  # type: ignore[attr-defined]
    await bench.ready_on(line, host)


async def test_a_worker_of_other_settings_is_not_adopted(bench: Bench) -> None:
    line = bench.line()
    await line.until_it_waits()
    host = bench.host("a", held=(held(line.spec.name, "another"),))
    assert host.adoptions == []  # type: ignore[attr-defined]
    await bench.ready_on(line, host)


async def test_a_machine_that_cannot_start_it_is_left_for_another(bench: Bench) -> None:
    line, first, second = bench.line(), bench.host("a"), bench.host("b")
    await line.until(WorkerState.STARTING)
    bench.machines.message(first, SpawnFailed(Epoch(1), 24, "too many open files"))
    await line.until(WorkerState.PLACING)
    await bench.ready_on(line, second)
    assert line.runner.status().restarts == 0


async def test_a_machine_without_the_models_file_is_left_for_another(bench: Bench) -> None:
    line, first = bench.line(), bench.host("a")
    await line.until(WorkerState.STARTING)
    epoch = first.bring_up()
    first.say(LoadFailed(epoch, "/m.gguf: no such file", retryable=False))
    await line.until(WorkerState.STOPPING)
    first.end(epoch, os.CLD_EXITED, 72)
    await line.until_it_waits()
    assert line.runner.awaited == (
        "no machine that has joined can run m (a: /m.gguf: no such file)"
    )
    second = bench.host("b")
    await line.until(WorkerState.STARTING)
    assert len(second.spawns()) == 1


async def test_the_end_of_a_process_has_its_signal_and_its_log(bench: Bench) -> None:
    line, host = bench.line(), bench.host("a")
    epoch = await bench.ready_on(line, host)
    host.end(epoch, os.CLD_KILLED, signal.SIGSEGV, b"the last line\n")
    async with asyncio.timeout(60):
        await line.runner.wait_until(lambda: line.crashes != [])
    (record,) = line.crashes
    assert (record.reason, record.signal, record.log) == (Reason.CRASHED, 11, ("the last line",))
    assert record.pid == 100


async def test_vitals_are_those_that_the_host_sends(bench: Bench) -> None:
    line, host = bench.line(), bench.host("a")
    epoch = await bench.ready_on(line, host)
    assert line.runner.status().rss_bytes == 0
    vitals = WorkerVitals(epoch, "T", 1.5, 3, 8192, 4096)
    bench.machines.message(host, HostVitals((vitals,)))
    assert line.runner.status().rss_bytes == 8192
    assert line.runner.anonymous_bytes() == 4096


async def test_a_stop_is_a_message_then_a_signal_by_the_host(bench: Bench) -> None:
    line, host = bench.line(), bench.host("a")
    epoch = await bench.ready_on(line, host)
    line.runner.post(ev.StopRequested(now=True))
    await line.until(WorkerState.STOPPING)
    (sent,) = host.signals()
    assert (sent.epoch, sent.number, sent.group) == (epoch, signal.SIGKILL, True)
    host.end(epoch, os.CLD_KILLED, signal.SIGKILL)
    await line.until(WorkerState.STOPPED)
    assert bench.machines.hosts.free_slots("a") == [0]


async def test_a_process_that_its_host_does_not_end_is_replaced_elsewhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one whose driver hangs: a kill does not reach it. Its room stays taken."""
    monkeypatch.setattr(process, "UNENDED_S", 0.01)
    line, first = bench.line(), bench.host("a")
    epoch = await bench.ready_on(line, first)
    second = bench.host("b")
    line.runner.post(ev.RestartRequested(now=True))
    await line.until(WorkerState.STOPPING)
    await line.until(WorkerState.STARTING)
    assert len(second.spawns()) == 1
    assert bench.machines.hosts.free_slots("a") == []
    first.end(epoch, os.CLD_KILLED, signal.SIGKILL)
    assert bench.machines.hosts.free_slots("a") == [0]


async def test_a_stop_while_it_waits_gives_the_room_back(bench: Bench) -> None:
    line = bench.line()
    await line.until_it_waits()
    line.runner.post(ev.StopRequested())
    await line.until(WorkerState.STOPPED)
    host = bench.host("a")
    other = bench.line("m-1")
    await bench.ready_on(other, host)


async def test_a_host_that_leaves_is_told_when_its_last_worker_has_ended(bench: Bench) -> None:
    asked: list[str] = []
    bench.machines.wants_rest = asked.append
    line, host = bench.line(), bench.host("a")
    epoch = await bench.ready_on(line, host)
    bench.machines.message(host, Leaving("SIGTERM", 30.0))
    bench.machines.message(host, Leaving("again", 30.0))
    assert asked == ["a"]
    assert not any(isinstance(message, Leave) for message in host.sent)
    line.runner.post(ev.StopRequested(now=True))
    await line.until(WorkerState.STOPPING)
    host.end(epoch, os.CLD_KILLED, signal.SIGKILL)
    assert isinstance(host.sent[-1], Leave)


async def test_a_host_without_a_worker_may_leave_at_once(bench: Bench) -> None:
    host = bench.host("a")
    bench.machines.message(host, Leaving("SIGTERM", 30.0))
    assert isinstance(host.sent[-1], Leave)


# the files of models


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    return str(path)


async def obtains(host: FakeChannel, n: int = 1) -> Epoch:
    """Wait until a host was told to have files at hand so many times. The last epoch."""
    async with asyncio.timeout(60):
        while len(found := [one for one in host.sent if isinstance(one, Obtain)]) < n:  # noqa: ASYNC110
            await asyncio.sleep(0)
    return found[-1].epoch


async def detail(line: Line, text: str) -> None:
    async with asyncio.timeout(60):
        await line.runner.wait_until(lambda: line.life.detail == text)


async def test_a_worker_starts_once_its_machine_has_the_files(bench: Bench, file: str) -> None:
    line, host = bench.line(model_path=file), bench.host("a")
    epoch = await obtains(host)
    bench.machines.message(host, Obtaining(epoch, "copying", "m.gguf", 42, 100))
    await detail(line, "a: copying m.gguf, 42 %")
    assert (line.life.state, line.runner.awaited) == (WorkerState.PLACING, None)
    assert bench.machines.prepared_on("a") == ["copying m.gguf, 42 %"]
    assert host.spawns() == []
    bench.machines.message(host, Obtained(epoch))
    await bench.ready_on(line, host)
    assert bench.machines.prepared_on("a") == []


async def test_a_copy_that_fails_is_no_failed_start(bench: Bench, file: str) -> None:
    line, first = bench.line(model_path=file), bench.host("a")
    epoch = await obtains(first)
    bench.machines.message(first, NotObtained(epoch, Trouble.NO_SPACE, "1 GB left"))
    await line.until_it_waits()
    assert line.runner.awaited == "no machine that has joined can run m (a: no space: 1 GB left)"
    second = bench.host("b")
    bench.machines.message(second, Obtained(await obtains(second)))
    await bench.ready_on(line, second)
    status = line.runner.status()
    assert (status.restarts, status.last_exit) == (0, None)
    bench.machines.message(first, Obtained(epoch))  # too late
    assert first.spawns() == []


async def test_a_machine_that_is_lost_while_it_copies_is_replaced(bench: Bench, file: str) -> None:
    line, first = bench.line(model_path=file), bench.host("a")
    await obtains(first)
    first.lose()
    second = bench.host("b")
    bench.machines.message(second, Obtained(await obtains(second)))
    await bench.ready_on(line, second)
    assert first.spawns() == []


async def test_a_worker_that_comes_back_ends_a_copy_elsewhere(bench: Bench, file: str) -> None:
    line, copying = bench.line(model_path=file), bench.host("b")
    epoch = await obtains(copying)
    digest = boot_digest(line.spec.boot(Epoch(1), "", ""))
    host = bench.host("a", held=(held(line.spec.name, digest),))
    assert len(host.adoptions) == 1  # type: ignore[attr-defined]
    assert Forgo(epoch) in copying.sent
    await line.until(WorkerState.STARTING)
    assert bench.machines.hosts.free_slots("b") == [0]
    assert bench.machines.hosts.free_slots("a") == []


async def test_a_stop_ends_a_copy(bench: Bench, file: str) -> None:
    line, host = bench.line(model_path=file), bench.host("a")
    epoch = await obtains(host)
    line.runner.post(ev.StopRequested())
    await line.until(WorkerState.STOPPED)
    assert Forgo(epoch) in host.sent
    assert bench.machines.hosts.free_slots("a") == [0]


async def test_a_drained_machine_copies_no_further(bench: Bench, file: str) -> None:
    line, host = bench.line(model_path=file), bench.host("a")
    epoch = await obtains(host)
    bench.machines.hosts.drain("a", is_drained=True)
    bench.machines.changed()
    await line.until_it_waits()
    assert line.runner.awaited == "waiting for a machine with room (a: drained)"
    assert Forgo(epoch) in host.sent
