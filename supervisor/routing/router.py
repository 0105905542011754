"""The choice of a worker: a strategy, with the loads that it chooses by."""

from gpufc.ids import Epoch
from supervisor.routing.loads import Loads
from supervisor.routing.port import Arrival, Strategy


class Router:
    """The open workers of one fingerprint. Owned by one pool.

    Accounts of a worker that was removed are ignored, so a sequence may end after its worker has
    left.
    """

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self.loads = Loads()

    def __len__(self) -> int:
        return len(self.loads)

    def add(
        self, worker: Epoch, capacity: int, n_sequences: int = 0, *, is_far: bool = False
    ) -> None:
        """A ready worker, which may have `capacity` sequences at once, and has some already.
        `is_far` if it is on another machine."""
        self.loads.add(worker, capacity, n_sequences, is_far=is_far)

    def resize(self, capacity: int) -> None:
        """Each worker may have so many sequences from now on."""
        self.loads.resize(capacity)

    def remove(self, worker: Epoch) -> None:
        """The worker is gone, or takes no more sequences."""
        self.loads.remove(worker)

    def choose(self, arrival: Arrival) -> Epoch | None:
        """The worker for a sequence; None if all are full."""
        return self._strategy.choose(arrival, self.loads)

    def took(self, worker: Epoch, arrival: Arrival) -> None:
        """The sequence was started on this worker."""
        self.loads.took(worker, arrival.n_tokens)
        self._strategy.sent(arrival, worker)

    def prefilled(self, worker: Epoch, n_tokens: int) -> None:
        """So many tokens that were taken are computed, or were found in the worker's cache."""
        self.loads.prefilled(worker, n_tokens)

    def gave_back(self, worker: Epoch, n_unfilled: int = 0) -> None:
        """A sequence has left the worker. `n_unfilled` of its tokens had not been computed."""
        self.loads.gave_back(worker, n_unfilled)
