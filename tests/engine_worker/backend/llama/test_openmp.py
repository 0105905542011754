import ctypes
import os
import threading
from collections.abc import Iterator

import pytest

from engine_worker.backend.llama.openmp import GnuWaiting


@pytest.fixture
def waiting() -> Iterator[GnuWaiting]:
    try:
        ctypes.CDLL("libgomp.so.1")  # as llama.cpp brings it
    except OSError:
        pytest.skip("this machine has no libgomp")
    made = GnuWaiting.of(2, 2)
    assert made is not None
    yield made
    made.be_long()


def surplus() -> int:
    return sum(thread.name.startswith("surplus") for thread in threading.enumerate())


def test_a_surplus_team_lives_while_waits_are_short(waiting: GnuWaiting) -> None:
    before = threads_of_process()
    waiting.be_short()
    waiting.be_short()
    assert surplus() == 1
    assert len(threads_of_process() - before) >= 2  # the owner, and its sleeping helper
    waiting.be_long()
    waiting.be_long()
    assert surplus() == 0


def threads_of_process() -> set[str]:
    """The threads of the kernel, which Python does not know all of."""
    return set(os.listdir("/proc/self/task"))
