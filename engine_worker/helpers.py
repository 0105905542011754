"""Threads that help another one with a piece of work, several thousand times a second.

Futures would do the same; to make and await one takes longer than such a piece.
"""

import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class Helpers:
    """Owned by one thread, which does its share. The others end with it, or with `close`."""

    def __init__(self, n_threads: int) -> None:
        """`n_threads` beside the caller's; with none the caller does it all."""
        self._wanted: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._help, name=f"helper-{number}", daemon=True)
            for number in range(n_threads)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the threads."""
        for _ in self._threads:
            self._wanted.put(None)
        for thread in self._threads:
            thread.join()

    def share(self, pieces: Iterable[T], work: Callable[[T], object]) -> None:
        """Do the work on all pieces, each in one thread. Raises what it raises, once all have been
        done. Nobody waits for a thread that wakes up late: others have done its pieces by then."""
        left = list(pieces)
        n_pieces = len(left)

        def take_part() -> None:
            while left:
                try:
                    piece = left.pop()
                except IndexError:  # another one was faster
                    return
                err = None
                try:
                    work(piece)
                except BaseException as caught:
                    err = caught
                self._done.put(err)

        for _ in range(min(len(self._threads), n_pieces - 1)):
            self._wanted.put(take_part)
        take_part()
        errors = [self._done.get() for _ in range(n_pieces)]
        for err in errors:
            if err is not None:
                raise err

    def _help(self) -> None:
        while (take_part := self._wanted.get()) is not None:
            take_part()
