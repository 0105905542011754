"""The port of a line of workers on other machines: it needs a machine for each process."""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from gpufc.ids import Epoch
from supervisor.fleet.edge import Edge
from supervisor.fleet.worker import WorkerSpec


class PlaceListener(Struct, frozen=True):
    """The functions of a line that needs a machine. They are called after `place` has returned."""

    found: Callable[[], None]
    """There is a machine, and it has all that the process needs."""
    awaits: Callable[[str], None]
    """No machine has room now; the text is for people. May be called repeatedly."""
    prepares: Callable[[str], None]
    """A machine has room, and gets the model's files; the text has the progress."""


class Placer(Protocol):
    """How a runner of a line on other machines gets a machine for its next process. The edge of
    that line starts the process there."""

    def place(self, epoch: Epoch, spec: WorkerSpec, told: PlaceListener, avoid: str = "") -> None:
        """Look for a machine. `told` hears of it. `avoid` says why it cannot be the machine of the
        process before."""
        ...

    def unplace(self) -> None:
        """Give up the search."""
        ...


class PlacedEdge(Edge, Placer, Protocol):
    """Both, for one line of workers on other machines."""
