"""A real worker host with real workers of the fake engine, and a scripted front."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from gpufc.ids import Epoch, WorkerName
from gpufc.protocol import Heartbeat
from supervisor.cluster.listener import Limits
from supervisor.cluster.messages import (
    Adoption,
    CloseLink,
    Ending,
    Exited,
    HostDevices,
    HostVitals,
    Leave,
    Leaving,
    Signal,
    Spawned,
    SpawnFailed,
)
from supervisor.cluster.port import HostChannel
from tests.supervisor.worker_host.conftest import TOKEN, Front, StartHost, gone

pytestmark = pytest.mark.slow


async def joined(front: Front, start_host: StartHost):  # type: ignore[no-untyped-def]
    host = await start_host(front.invite())
    await front.hosts.until(lambda: front.hosts.channels)
    return host


async def test_a_worker_computes_over_its_host(front: Front, start_host: StartHost) -> None:
    host = await joined(front, start_host)
    assert front.hosts.channel.machine == "node"
    assert front.hosts.channel.hello.cores > 0
    front.spawn(1)
    hello = await front.until_ready(1)
    assert front.hosts.of(Spawned) == [Spawned(Epoch(1), hello.pid)]
    assert [worker.pid for worker in host.workers()] == [hello.pid]
    front.generate(1)
    await front.hosts.until(lambda: front.is_finished(1))
    assert len(front.tokens(1)) == 8
    front.shutdown(1)
    await front.hosts.until(lambda: front.hosts.of(Exited))
    (exited,) = front.hosts.of(Exited)
    assert (exited.epoch, exited.si_status, exited.oom) == (1, 0, False)


async def test_a_killed_worker_is_reported_after_its_last_frame(
    front: Front, start_host: StartHost
) -> None:
    await joined(front, start_host)
    front.spawn(1)
    hello = await front.until_ready(1)
    os.kill(hello.pid, signal.SIGKILL)
    await front.hosts.until(lambda: front.hosts.of(Exited))
    n_frames = len(front.hosts.frames[Epoch(1)])
    (exited,) = front.hosts.of(Exited)
    assert exited.si_status == signal.SIGKILL
    ending = [Ending(Epoch(1), os.CLD_KILLED, signal.SIGKILL, False)]
    # one that the host has reaped already has no status that could be told early
    assert front.hosts.of(Ending) in ([], ending)
    front.spawn(2)
    await front.until_ready(2)
    assert len(front.hosts.frames[Epoch(1)]) == n_frames


async def test_the_front_signals_a_worker(front: Front, start_host: StartHost) -> None:
    await joined(front, start_host)
    front.spawn(1)
    await front.until_ready(1)
    front.hosts.channel.send(Signal(Epoch(1), signal.SIGABRT))
    front.hosts.channel.send(Signal(Epoch(99), signal.SIGKILL))
    await front.hosts.until(lambda: front.hosts.of(Exited))
    (exited,) = front.hosts.of(Exited)
    assert exited.si_status == signal.SIGABRT
    assert b"Fatal Python error: Aborted" in exited.log
    assert front.hosts.of(Ending) == []  # its cause stands in its log, which is whole at its end


async def test_vitals_and_devices_arrive(front: Front, start_host: StartHost) -> None:
    await joined(front, start_host)
    front.spawn(1)
    await front.until_ready(1)

    def rows():  # type: ignore[no-untyped-def]
        return [row for vitals in front.hosts.of(HostVitals) for row in vitals.workers]

    await front.hosts.until(lambda: len(rows()) >= 2 and front.hosts.of(HostDevices))
    row = rows()[-1]
    assert row.epoch == 1
    assert row.rss_bytes > 1_000_000
    assert row.anonymous_bytes
    assert front.hosts.of(HostDevices)[-1].snapshot.host.cpu_count > 0


async def test_a_closed_link_is_silent_and_its_process_lives(
    front: Front, start_host: StartHost
) -> None:
    host = await joined(front, start_host)
    front.spawn(1)
    await front.until_ready(1)
    front.hosts.channel.send(CloseLink(Epoch(1)))
    front.spawn(2)
    await front.until_ready(2)
    seen = len(front.hosts.frames[Epoch(1)])
    beats = sum(isinstance(one, Heartbeat) for one in front.of_worker(2))
    await front.hosts.until(
        lambda: sum(isinstance(one, Heartbeat) for one in front.of_worker(2)) > beats + 2
    )
    assert len(front.hosts.frames[Epoch(1)]) == seen
    assert len(host.workers()) == 2


async def test_a_killed_host_leaves_no_worker(front: Front, start_host: StartHost) -> None:
    host = await joined(front, start_host)
    front.spawn(1)
    front.spawn(2)
    await front.until_ready(1)
    await front.until_ready(2)
    workers = host.workers()
    assert len(workers) == 2
    host.process.kill()
    await front.hosts.until(lambda: front.hosts.losses)
    await gone(workers)


async def test_workers_end_when_the_lease_is_over(
    make_front: Callable[..., Front], start_host: StartHost
) -> None:
    front = make_front(Limits(lease_s=2.0))
    host = await joined(front, start_host)
    front.spawn(1)
    await front.until_ready(1)
    workers = host.workers()
    front.close()
    await gone(workers)
    await host.says("no lease for 2 s: 1 workers end")
    assert host.process.returncode is None  # it dials on


async def test_a_front_that_comes_back_adopts_a_worker(front: Front, start_host: StartHost) -> None:
    host = await joined(front, start_host)
    front.spawn(1)
    front.spawn(2)
    pid = (await front.until_ready(1)).pid
    await front.until_ready(2)
    workers = host.workers()
    front.restart()

    def adopt(channel: HostChannel) -> list[Adoption]:
        assert {held.pid for held in channel.hello.held} == {one.pid for one in workers}
        front.hosts.listen(1)
        return [Adoption(pid, Epoch(1), WorkerName("new-0"), TOKEN)]

    front.hosts.adopt = adopt
    hello = await front.until_ready(1)
    assert (hello.pid, hello.epoch) == (pid, 1)
    assert front.hosts.channel.machine == "node"
    await gone([one for one in workers if one.pid != pid])
    front.generate(1)
    await front.hosts.until(lambda: front.is_finished(1))


async def test_the_end_of_a_worker_that_was_not_adopted_is_no_end_of_a_new_one(
    front: Front, start_host: StartHost
) -> None:
    """A front that has restarted counts epochs anew."""
    host = await joined(front, start_host)
    front.spawn(1)
    await front.until_ready(1)
    workers = host.workers()
    front.restart()
    await front.hosts.until(lambda: front.hosts.channels)
    front.spawn(1)
    await front.until_ready(1)
    await gone(workers)
    await host.says("has ended")
    front.generate(1)
    await front.hosts.until(lambda: front.is_finished(1))
    assert front.hosts.of(Exited) == []


async def test_a_worker_that_cannot_start_is_reported(
    front: Front, start_host: StartHost, tmp_path: Path
) -> None:
    host = await joined(front, start_host)
    logs = tmp_path / "h0" / "logs"
    (logs / "fake-1.log").mkdir()
    front.spawn(1)
    await front.hosts.until(lambda: front.hosts.of(SpawnFailed))
    assert front.hosts.of(SpawnFailed)[0].epoch == 1
    assert host.workers() == []


async def test_a_host_that_is_asked_to_end_lets_the_front_move_its_streams(
    front: Front, start_host: StartHost
) -> None:
    host = await joined(front, start_host)
    front.spawn(1)
    await front.until_ready(1)
    workers = host.workers()
    host.process.send_signal(signal.SIGTERM)
    await front.hosts.until(lambda: front.hosts.of(Leaving))
    front.generate(1)
    await front.hosts.until(lambda: front.is_finished(1))  # it serves until it may leave
    front.hosts.channel.send(Leave("its streams run elsewhere"))
    assert await host.ended() == 0
    await gone(workers)
    await front.hosts.until(lambda: front.hosts.losses)
    assert [one.si_status for one in front.hosts.of(Exited)] == [signal.SIGKILL]
    assert "its streams run elsewhere" in host.output


async def test_a_second_signal_ends_it_at_once(front: Front, start_host: StartHost) -> None:
    host = await joined(front, start_host)
    front.spawn(1)
    await front.until_ready(1)
    workers = host.workers()
    host.process.send_signal(signal.SIGINT)
    await front.hosts.until(lambda: front.hosts.of(Leaving))
    host.process.send_signal(signal.SIGINT)
    assert await host.ended() == 0
    await gone(workers)


async def test_a_host_waits_for_its_front(make_front, start_host, tmp_path) -> None:  # type: ignore[no-untyped-def]
    front = make_front()
    join = front.invite()
    front.close()
    host = await start_host(join)
    await host.says("cannot be reached")
    front.restart()
    await front.hosts.until(lambda: front.hosts.channels)
    await host.says("joined the front")


async def test_a_used_join_file_is_refused_with_a_reason(
    front: Front, start_host: StartHost
) -> None:
    join = front.invite()
    await start_host(join)
    await front.hosts.until(lambda: front.hosts.channels)
    second = await start_host(join, key="other.json")
    await second.says("does not know this host")
    assert len(front.hosts.channels) == 1


async def test_a_host_comes_back_without_its_join_file(front: Front, start_host: StartHost) -> None:
    host = await joined(front, start_host)
    await host.says("joined the front")
    host.process.kill()
    await front.hosts.until(lambda: front.hosts.losses)
    await start_host(None)
    await front.hosts.until(lambda: len(front.hosts.channels) == 2)
    assert front.hosts.channel.machine == "node"


async def test_another_front_at_the_address_gets_nothing(make_front, start_host) -> None:  # type: ignore[no-untyped-def]
    front = make_front()
    join = front.invite()
    impostor = make_front(folder="impostor")
    host = await start_host(join, "--front", impostor.address)
    await host.says("not the front of the join file")
    assert impostor.hosts.channels == []
    assert front.hosts.channels == []


async def test_two_processes_of_one_host_get_one_lease(front: Front, start_host: StartHost) -> None:
    host = await joined(front, start_host)
    await host.says("joined")
    second = await start_host(None)
    await second.says("another process is attached as node")
    assert front.hosts.losses == []
    await asyncio.sleep(0)
    assert host.process.returncode is None
