"""Lines of workers on machines that come and go: a runner against a fake host."""

import asyncio
import os
import signal

import pytest

from gpufc.ids import Epoch
from gpufc.protocol import PROTOCOL_VERSION, Hello, LoadFailed, Shutdown
from supervisor.cluster.messages import (
    Ending,
    HostVitals,
    Leave,
    Leaving,
    LinkBroken,
    SpawnFailed,
    WorkerVitals,
)
from supervisor.fleet import events as ev
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.states import WorkerState
from supervisor.remote import process
from supervisor.remote.hosts import SHUN_S
from tests.supervisor.remote.conftest import Bench


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


async def test_a_worker_that_begins_to_end_is_lost_before_its_process_is_gone(
    bench: Bench,
) -> None:
    line, host = bench.line(), bench.host("a")
    epoch = await bench.ready_on(line, host)
    host._hosts.message(host, Ending(epoch, os.CLD_KILLED, signal.SIGKILL, False))
    await line.runner.wait_until(lambda: line.runner.worker is None)
    assert line.listener.calls == ["ready 1", "lost 1"]
    assert len(host.spawns()) == 1  # its memory is not back
    host.end(epoch, os.CLD_KILLED, signal.SIGKILL)
    await line.until(WorkerState.STARTING)
    assert line.listener.calls == ["ready 1", "lost 1"]
    assert len(host.spawns()) == 2


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
