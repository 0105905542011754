"""Passes in the thread that asks for them, and in one beside it."""

import threading
from collections.abc import Callable

import pytest

from engine_worker.backend.llama.computing import AtOnce, Beside, Computing, computing_for
from gpufc.errors import DecodeFailed, OutOfCells

BOTH: list[Callable[[], Computing]] = [AtOnce, Beside]


def raising(error: Exception) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize("new", BOTH)
def test_each_work_is_done_before_the_wait_ends(new: Callable[[], Computing]) -> None:
    computing, done = new(), []
    for number in range(200):
        computing.start(lambda number=number: done.append(number))
        computing.wait()
        assert done[-1] == number
    computing.start(lambda: done.append(-1))
    computing.start(lambda: done.append(-2))  # waits for the one before
    computing.settle()
    assert done[-2:] == [-1, -2]


@pytest.mark.parametrize("new", BOTH)
@pytest.mark.parametrize("error", [OutOfCells("full"), DecodeFailed("lost")])
def test_an_error_is_raised_once(new: Callable[[], Computing], error: Exception) -> None:
    computing, done = new(), []

    def start_and_wait() -> None:
        computing.start(raising(error))
        computing.settle()
        computing.wait()

    with pytest.raises(type(error)):
        start_and_wait()
    computing.wait()
    computing.start(lambda: done.append(True))
    computing.wait()
    assert done == [True]


def test_work_beside_leaves_the_thread_that_asked_for_it_free() -> None:
    beside, may_end, names = Beside(), threading.Event(), []

    def work() -> None:
        names.append(threading.current_thread().name)
        assert may_end.wait(60)

    beside.start(work)  # returns before the work has ended
    may_end.set()
    beside.wait()
    assert names == ["compute"]


def test_one_thread_computes_for_all_contexts() -> None:
    made = [computing_for(beside=True, on_device=False) for _ in range(2)]
    assert made[0] is made[1]
    assert isinstance(computing_for(beside=False, on_device=True), AtOnce)
