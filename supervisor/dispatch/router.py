"""The choice of a worker for a sequence. Pure."""

from collections.abc import Iterable

from msgspec import Struct

from gpufc.ids import Epoch


class Load(Struct, frozen=True):
    """A ready worker's load: the sequences that it has, and may have."""

    epoch: Epoch
    outstanding: int
    capacity: int


def least_outstanding(loads: Iterable[Load]) -> Epoch | None:
    """The worker with the fewest sequences among those with room; None if all are full."""
    free = [load for load in loads if load.outstanding < load.capacity]
    return min(free, key=lambda load: load.outstanding).epoch if free else None
