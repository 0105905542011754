"""How work grows with its input: claims about cost that hold on a loaded machine.

`assert_linear` compares times with each other and never with a clock; `calls` counts.
"""

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

TIMES = 8
"""How much larger the larger input is."""

MOST = 3 * TIMES
"""The growth that still counts as linear. That of quadratic work is `TIMES` squared."""

ATTEMPTS = 10

RUNS = 3
"""Of the larger input in an attempt; the smaller one has as much more as it is smaller. A single
slow moment would make few short runs look long, and quadratic work linear."""


def assert_linear(prepare: Callable[[int], Callable[[], object]], n: int) -> None:
    """Fail when work for `TIMES * n` items takes more than `MOST` times as long as that for `n`.

    `prepare` makes an input of so many items; its answer is the work, which can be repeated.
    One good attempt is enough: load from other processes makes work slower, never faster.
    """
    small, large = prepare(n), prepare(TIMES * n)
    least = float("inf")
    for _ in range(ATTEMPTS):
        least = min(least, _thread_s(large, RUNS) / _thread_s(small, RUNS * TIMES))
        if least <= MOST:
            return
    raise AssertionError(f"{TIMES} times as many items took at least {least:.1f} times as long")


def calls(work: Callable[[], object]) -> int:
    """How many functions are called while `work` runs in this thread, those in C among them."""
    n = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal n
        n += event in ("call", "c_call")

    with _undisturbed():
        before = sys.getprofile()
        sys.setprofile(count)
        try:
            work()
        finally:
            sys.setprofile(before)
    return n - 1  # the last call ends the count


def _thread_s(work: Callable[[], object], n_runs: int) -> float:
    """The processor time of the fastest run."""
    took = []
    with _undisturbed():
        for _ in range(n_runs):
            began = time.thread_time()
            work()
            took.append(time.thread_time() - began)
    return max(min(took), 1e-6)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No collection of garbage: it costs what all objects of the process cost."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
