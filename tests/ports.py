"""Ports for processes that are told one before they listen.

The kernel gives out ports of its ephemeral range, also as local ports of connections, so one of
those that was free may be taken before its process listens. Test processes run beside each other:
each has a range of its own below.
"""

import itertools
import os
import socket

FIRST, N_EACH, N_PROCESSES = 20_000, 500, 24
"""They end below 32768, where Linux begins its ephemeral range."""


def range_of(worker: str) -> range:
    """The ports of one process of pytest-xdist, `gw0` and so on; empty is the only process."""
    number = int(worker.removeprefix("gw") or 0) % N_PROCESSES
    first = FIRST + N_EACH * number
    return range(first, first + N_EACH)


_own = range_of(os.environ.get("PYTEST_XDIST_WORKER", ""))
_begin = os.getpid() % N_EACH  # two runs on one machine
_next = itertools.cycle([*_own[_begin:], *_own[:_begin]])


def free_ports(n: int) -> list[int]:
    """Ports of loopback on which no process listens now, others each time."""
    return list(itertools.islice(filter(_is_free, itertools.islice(_next, N_EACH)), n))


def free_port() -> int:
    """A port that a process may keep over its restarts."""
    (port,) = free_ports(1)
    return port


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
