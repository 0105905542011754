"""This process's file descriptors: their limit, the share of connections, and a reserve.

A flood of connections must not take the descriptors that the start of a worker needs.
"""

import contextlib
import os
import resource

HIGHEST = 1 << 20
"""A higher limit has no use here, and some programs walk over all numbers below it."""

OWN = 128
"""Descriptors for all but clients' connections: listeners, commands, logs, workers, the reserve."""

LEAST_CONNECTIONS = 16
RESERVE = 24
"""The start of a worker takes about ten at once: socket, boot pipe, log, pidfd, pipe of the
spawn."""


def raise_limit() -> int:
    """Raise the soft limit to the hard one. Returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = HIGHEST if hard == resource.RLIM_INFINITY else min(hard, HIGHEST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return limit()


def limit() -> int:
    """The soft limit in force; at most `HIGHEST`."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return HIGHEST if soft == resource.RLIM_INFINITY else min(soft, HIGHEST)


def for_connections(n_descriptors: int) -> int:
    """How many connections a process with so many descriptors may hold. Pure."""
    own = max(OWN, n_descriptors // 8)
    return max(LEAST_CONNECTIONS, n_descriptors // 2, n_descriptors - own)


class Reserve:
    """Descriptors held open so that they can be given up for the start of a worker.

    Used in the event loop's thread: no connection is accepted between `release` and the opening of
    the descriptors that take their place.
    """

    def __init__(self, size: int = RESERVE) -> None:
        self._size = size
        self._held: list[int] = []
        self.refill()

    @property
    def n_held(self) -> int:
        return len(self._held)

    def release(self) -> None:
        """Close all of them."""
        held, self._held = self._held, []
        for fd in held:
            os.close(fd)

    def refill(self) -> None:
        """Hold as many as there are free ones, up to the size."""
        with contextlib.suppress(OSError):
            while len(self._held) < self._size:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
