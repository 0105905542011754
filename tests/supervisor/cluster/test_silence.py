"""When the front's listener takes a silent host for lost."""

import asyncio
from collections.abc import Callable

import pytest

from supervisor.cluster import wire
from supervisor.cluster.listener import LEAST_PAUSE_S, Limits
from supervisor.cluster.messages import Lease
from tests.supervisor.cluster.listener_bench import Bench


async def test_a_silent_host_is_lost(bench: Bench) -> None:
    bench.reopen(Limits(silence_s=0.04, late_s=1e9))
    await bench.joined()
    bench.now += 1.0
    await bench.hosts.until(lambda: bench.hosts.losses)
    assert "silent for 1.0 s" in bench.hosts.losses[0]


class Timer:
    """Stands in for the loop's timers: the last one that was set."""

    def __init__(self) -> None:
        self.pause_s = 0.0

    def call_later(self, pause_s: float, _call: Callable[[], None]) -> "Timer":
        self.pause_s = pause_s
        return self

    def cancel(self) -> None: ...


async def test_a_silent_host_is_lost_when_its_time_is_over_and_not_a_look_later(
    bench: Bench,
) -> None:
    bench.reopen(Limits(lease_s=4.0, silence_s=5.1, late_s=1e9))
    listener, timer = bench.listener, Timer()
    listener._timer.cancel()
    await bench.joined()
    listener._loop = timer  # type: ignore[assignment]
    while not bench.hosts.losses:
        listener._look()
        bench.now += timer.pause_s
    lost_at = bench.now - timer.pause_s
    assert lost_at == pytest.approx(5.1, abs=1.5 * LEAST_PAUSE_S)


@pytest.mark.parametrize(
    ("silent_s", "pause_s"), [(0.0, 1.0), (3.9, 1.0), (4.7, 0.3), (5.0, LEAST_PAUSE_S)]
)
def test_the_next_look_is_when_a_silent_host_is_lost(silent_s: float, pause_s: float) -> None:
    assert Limits(silence_s=5.0).pause_s(silent_s) == pytest.approx(pause_s)


async def test_time_in_which_the_front_did_not_look_is_no_silence(bench: Bench) -> None:
    bench.reopen(Limits(silence_s=0.04, late_s=0.5))
    peer, _ = await bench.joined()
    bench.now += 100.0
    leases = 0
    while leases < 3:
        await bench.until(lambda: peer.socket.poll(0))
        leases += isinstance(wire.decode_to_host(wire.split(peer.socket.recv())[1]), Lease)
    assert bench.hosts.losses == []


async def test_a_host_that_was_heard_before_a_late_look_may_not_be_silent_longer(
    bench: Bench,
) -> None:
    bench.reopen(Limits(silence_s=0.04, late_s=0.5))
    await bench.joined()
    looked = asyncio.Event()

    def clock() -> float:
        looked.set()
        return 100.0

    bench.listener.clock = clock
    bench.hosts.channel.heard_at = 100.0  # its messages were read before the look
    async with asyncio.timeout(60):
        await looked.wait()
    assert bench.hosts.channel.heard_at == 100.0
