"""The store that fronts share, as they use it. Pure.

`nats_store` implements it by a stream of NATS JetStream.
"""

from collections.abc import Callable
from typing import Protocol

from gpufc.errors import GpufcError


class Refused(GpufcError):
    """The subject's last message is not the expected one: another front has written to it."""


class Away(GpufcError):
    """The store has not answered, or cannot do the work now. The message may have been stored."""


class Behind(Away):
    """The store refuses a message, and has none behind the expected one. It lags, as the new leader
    of a cluster does for a moment; or it has lost its records."""


class Store(Protocol):
    """Messages by subject, each with a number that grows over all subjects. Every call but `beat`
    may raise `Away`."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection. One that is cut off may take a while to be noticed."""
        ...

    @property
    def most_bytes(self) -> int:
        """The largest message."""
        ...

    async def append(self, subject: str, data: bytes, expected: int) -> int:
        """Store a message behind the subject's message `expected`, 0 for none, and return its
        number. Raises `Refused`."""
        ...

    async def read(self, subject: str, after: int = 0) -> list[tuple[int, bytes]]:
        """The subject's messages behind a number, in order, each with its number."""
        ...

    async def purge(self, subject: str, before: int | None = None) -> None:
        """Forget the subject's messages: those before a number, or all."""
        ...

    async def runs(self) -> list[str]:
        """The runs that have logs."""
        ...

    def beat(self, data: bytes) -> None:
        """Send a message to all fronts that listen now. It may be lost."""
        ...

    def listen(self, heard: Callable[[bytes], None]) -> None:
        """Be told of every beat, one's own ones included."""
        ...

    def start(self) -> None:
        """Connect, now and whenever the connection is lost. Returns at once."""
        ...

    async def close(self) -> None:
        """End the connection."""
        ...


def request_subject(name: str) -> str:
    """Where the records of a request are."""
    return f"request.{name}"


def log_subject(run: str) -> str:
    """Where the log of a run is."""
    return f"log.{run}"
