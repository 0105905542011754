"""The reader's wait: one timer for all waits of a stream, and each wait ends in time."""

import asyncio
import math
from typing import Any

import pytest

from supervisor.dispatch.stream import Wakeup

SHORT_S, LONG_S = 0.02, 60.0


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.TimerHandle]:
    """All timers that are set meanwhile."""
    made: list[asyncio.TimerHandle] = []
    set_timer = asyncio.base_events.BaseEventLoop.call_at

    def call_at(*args: Any, **options: Any) -> asyncio.TimerHandle:
        made.append(set_timer(*args, **options))
        return made[-1]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "call_at", call_at)
    return made


def in_s(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def wait_and_wake(wakeup: Wakeup, timeout_s: float) -> None:
    waiting = asyncio.create_task(wakeup.wait_until(in_s(timeout_s)))
    await asyncio.sleep(0)
    wakeup.wake()
    await waiting


async def test_a_wait_ends_when_it_is_woken_or_after_its_time() -> None:
    wakeup = Wakeup()
    await wait_and_wake(wakeup, LONG_S)
    wakeup.rest()
    async with asyncio.timeout(LONG_S):
        await wakeup.wait_until(in_s(SHORT_S))


async def test_many_waits_set_one_timer(timers: list[asyncio.TimerHandle]) -> None:
    wakeup = Wakeup()
    for _ in range(100):
        await wait_and_wake(wakeup, LONG_S)
    assert len(timers) == 1
    wakeup.rest()
    assert timers[0].cancelled()


async def test_a_shorter_wait_after_a_longer_one_is_not_too_long() -> None:
    wakeup = Wakeup()
    await wait_and_wake(wakeup, LONG_S)
    async with asyncio.timeout(LONG_S / 2):
        await wakeup.wait_until(in_s(SHORT_S))
    wakeup.rest()


async def test_a_wait_is_not_cut_short_by_the_timer_of_one_before() -> None:
    wakeup, loop = Wakeup(), asyncio.get_running_loop()
    await wait_and_wake(wakeup, SHORT_S)
    began = loop.time()
    await wakeup.wait_until(in_s(3 * SHORT_S))
    assert loop.time() - began >= 3 * SHORT_S * 0.9


async def test_a_wait_without_a_limit_is_not_ended_by_the_timer_of_one_before() -> None:
    wakeup = Wakeup()
    await wait_and_wake(wakeup, SHORT_S)
    waiting = asyncio.create_task(wakeup.wait_until(math.inf))
    later = Wakeup()
    await later.wait_until(in_s(3 * SHORT_S))
    assert not waiting.done()
    wakeup.wake()
    await waiting
