"""In which thread the passes of a process are computed.

A CPU that leaves a core free computes them in a thread of its own, like a device: meanwhile the
engine thread reports the last tokens and prepares the next choice. Where every core computes, that
would interrupt a thread for which all others wait, so the engine thread computes by itself.
"""

import functools
from collections.abc import Callable
from threading import Lock
from typing import Protocol

from engine_worker import threads, time_slice
from gpufc.errors import DecodeFailed, OutOfCells

Work = Callable[[], None]


class Computing(Protocol):
    """Owned by the engine thread. One work at a time."""

    def start(self, work: Work) -> None:
        """Compute it. Raises its `OutOfCells` or `DecodeFailed`, or else `wait` does."""
        ...

    def settle(self) -> None:
        """Wait until nothing is computed. Afterwards the calling thread may use llama.cpp."""
        ...

    def wait(self) -> None:
        """Wait for the last work, and raise its error, once."""
        ...


class AtOnce:
    """In the thread that asks for it, before `start` returns."""

    def start(self, work: Work) -> None:
        work()

    def settle(self) -> None:
        return

    def wait(self) -> None:
        return


class Beside:
    """In a thread of its own. Any error but the two ends the process.

    libgomp has a team of threads for each thread that computes, and lets all of them sleep early
    once they are more than there are cores. So one thread computes the passes of all contexts.
    """

    def __init__(self) -> None:
        self._given, self._taken, self._done = Lock(), Lock(), Lock()
        for lock in (self._given, self._taken, self._done):
            lock.acquire()
        self._work: Work = lambda: None
        self._error: OutOfCells | DecodeFailed | None = None
        self._is_computing = False
        threads.start("compute", self._run)

    def start(self, work: Work) -> None:
        self.settle()
        self._work, self._error, self._is_computing = work, None, True
        self._given.release()
        # the interpreter's lock goes to the other thread, which gives it back for the computation
        self._taken.acquire()

    def settle(self) -> None:
        if self._is_computing:
            self._done.acquire()
            self._is_computing = False

    def wait(self) -> None:
        self.settle()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        time_slice.choose(time_slice.COMPUTING_S)
        while True:
            self._given.acquire()
            self._taken.release()
            try:
                self._work()
            except (OutOfCells, DecodeFailed) as err:
                self._error = err
            self._done.release()


def computing_for(*, beside: bool, on_device: bool) -> Computing:
    """Where a new context is computed. The thread that computes on a CPU has a long time slice from
    now on, and so have those that it starts."""
    if beside:
        return _shared()
    if not on_device:
        time_slice.choose(time_slice.COMPUTING_S)
    return AtOnce()


@functools.cache
def _shared() -> Beside:
    return Beside()
