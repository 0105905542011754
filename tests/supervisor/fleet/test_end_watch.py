"""The watch of a worker's end costs the front nothing, whatever the system and the worker do."""

import asyncio
import logging
import os
import threading
from collections.abc import Iterator

import pytest

from gpufc import end_word
from gpufc.end_word import Seen
from supervisor.fleet.end_watch import MOST_EARLY, EndWatch
from tests.leaks import nothing_leaks

pytestmark = pytest.mark.skipif(not end_word.is_supported(), reason="no glibc on a known processor")


@pytest.fixture
def word() -> Iterator[int]:
    fd = end_word.make()
    yield fd
    os.close(fd)


def never() -> None:
    raise AssertionError("nothing has ended")


async def test_a_worker_without_a_thread_to_watch_it_serves_all_the_same(
    word: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with nothing_leaks(), caplog.at_level(logging.WARNING):
        EndWatch(word, asyncio.get_running_loop(), never).close()
    assert "end_not_watched: can't start new thread" in caplog.text


async def test_a_holder_that_wakes_the_watch_over_and_over_is_watched_no_more(
    word: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    given_up = threading.Event()

    def woken(_watch: end_word.Watch, timeout_s: float) -> Seen:
        waits.append(timeout_s)
        return Seen.LIVES

    monkeypatch.setattr(end_word.Watch, "wait", woken)
    monkeypatch.setattr(end_word.Watch, "close", lambda _watch: given_up.set())
    EndWatch(word, asyncio.get_running_loop(), never)
    assert await asyncio.to_thread(given_up.wait, 60.0)
    assert len(waits) == MOST_EARLY
