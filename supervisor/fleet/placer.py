"""The port of a line of workers on other machines: it needs a machine for each process."""

from collections.abc import Callable
from typing import Protocol

from gpufc.ids import Epoch
from supervisor.fleet.edge import Edge
from supervisor.fleet.worker import WorkerSpec

PlaceListener = Callable[[str | None], None]


class Placer(Protocol):
    """How a runner of a line on other machines gets a machine for its next process. The edge of
    that line starts the process there."""

    def place(self, epoch: Epoch, spec: WorkerSpec, told: PlaceListener, avoid: str = "") -> None:
        """Look for a machine. `told` is called soon or later, not in this call: with None once
        there is one, and before that, perhaps repeatedly, with a text of what is awaited. `avoid`
        says why it cannot be the machine of the process before."""
        ...

    def unplace(self) -> None:
        """Give up the search."""
        ...


class PlacedEdge(Edge, Placer, Protocol):
    """Both, for one line of workers on other machines."""
