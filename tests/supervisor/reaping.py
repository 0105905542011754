"""A process that has ended, and whose memory is still being given back."""

from collections.abc import Iterator
from contextlib import contextmanager

from supervisor.fleet.process import WorkerProcess


@contextmanager
def not_reaped(process: WorkerProcess) -> Iterator[None]:
    """Within it the process, once killed, stays a zombie; at the end it is waited for and reaped. A
    reaped one has no status that could be told early."""
    process._loop.remove_reader(process._pidfd)
    try:
        yield
    finally:
        process._ended()
