import ctypes
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
    before = n_threads_of_process()
    waiting.be_short()
    waiting.be_short()
    assert surplus() == 1
    assert n_threads_of_process() >= before + 2  # the owner, and its sleeping helper
    waiting.be_long()
    waiting.be_long()
    assert surplus() == 0


def n_threads_of_process() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("Threads:"))
