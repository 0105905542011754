"""The port of the strategies: what a choice may know, and what it is told afterwards."""

from typing import Protocol

from msgspec import Struct

from gpufc.ids import Epoch
from supervisor.routing.loads import Loads


class Arrival(Struct, frozen=True):
    """A sequence that needs a worker. Its prompt has been tokenized.

    `n_tokens` have to be known to the engine before it generates. `prefix` has a hash for each
    whole block of them, which stands for all tokens up to the block's end
    (`prefix.prefix_of`); it is empty where no cached prefix may be used.
    """

    n_tokens: int = 0
    prefix: tuple[int, ...] = ()


class Strategy(Protocol):
    """Chooses among the workers of one fingerprint. One object for each fingerprint."""

    def choose(self, arrival: Arrival, loads: Loads) -> Epoch | None:
        """A worker with room; None if all are full."""
        ...

    def sent(self, arrival: Arrival, worker: Epoch) -> None:
        """The sequence was started on this worker, which another rule may have chosen."""
        ...

    def lost(self, worker: Epoch) -> None:
        """The worker and its cache are gone. Its epoch never comes back."""
        ...
