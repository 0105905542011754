"""Time slices of real threads, as the kernel tells them."""

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

import pytest

from engine_worker import threads, time_slice
from engine_worker.backend.port import Batch
from tests.engine_worker.backend.llama.loaded import load
from tests.models.making import made

T = TypeVar("T")

pytestmark = pytest.mark.skipif(
    time_slice.chosen() is None, reason="this kernel tells no thread's time slice"
)


def in_thread(run: Callable[[], T]) -> T:
    """What it returns in a thread of its own."""
    answers: SimpleQueue[T] = SimpleQueue()
    thread = threading.Thread(target=lambda: answers.put(run()))
    thread.start()
    thread.join()
    return answers.get_nowait()


def usual() -> float | None:
    """The kernel's own choice. A test that loaded a model has left its thread another one."""

    def run() -> float | None:
        time_slice.choose(None)
        return time_slice.chosen()

    return in_thread(run)


def test_a_thread_and_those_that_it_starts_have_the_slice_that_it_chose() -> None:
    def run() -> tuple[float | None, float | None]:
        time_slice.choose(0.02)
        return time_slice.chosen(), in_thread(time_slice.chosen)

    before = time_slice.chosen()
    assert in_thread(run) == (0.02, 0.02)
    assert time_slice.chosen() == before


def test_a_slice_can_be_given_back() -> None:
    def run() -> float | None:
        time_slice.choose(0.02)
        time_slice.choose(None)
        return time_slice.chosen()

    assert in_thread(run) == usual()


def test_a_thread_of_the_worker_has_the_usual_one_whoever_starts_it() -> None:
    answers: SimpleQueue[float | None] = SimpleQueue()

    def run() -> float | None:
        time_slice.choose(0.02)
        threads.start("one", lambda: answers.put(time_slice.chosen()))
        return answers.get(timeout=60)

    assert in_thread(run) == usual()


def test_a_thread_with_the_usual_one_takes_the_core_from_one_that_computes() -> None:
    assert 2 * (usual() or 0.0) < time_slice.COMPUTING_S


def test_all_threads_that_compute_a_pass_have_the_long_one() -> None:
    """OpenMP starts its threads in the first pass, from the thread that has loaded the model."""

    def run() -> list[float | None]:
        before = set(os.listdir("/proc/self/task"))
        backend = load(made("llama"), n_threads=2, share_cores=False)
        backend.begin(Batch([1, 2, 3], [0, 1, 2], [0, 0, 0], [False, False, True]))
        started = set(os.listdir("/proc/self/task")) - before
        slices = [time_slice.chosen(), *(time_slice.chosen(int(thread)) for thread in started)]
        backend.close()
        return slices

    found = in_thread(run)
    assert len(found) > 1
    assert set(found) == {time_slice.COMPUTING_S}
