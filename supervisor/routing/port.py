"""The port of the strategies: what a choice may know, and what it is told afterwards."""

from collections.abc import Hashable
from typing import Protocol

from gpufc.ids import Epoch
from gpufc.protocol import Tokens
from supervisor.routing.loads import Loads
from supervisor.routing.prefix import prefix_of


class Arrival:
    """A sequence that needs a worker. Its prompt has been tokenized. A client reads the answer of a
    replay already.

    `n_tokens` have to be known to the engine before it generates. `shared_by` is what a cached
    prefix is shared by besides its tokens, such as the scope; with None no cached prefix is used.
    """

    __slots__ = ("_prefix", "_shared_by", "_tokens", "is_replay", "n_tokens")

    def __init__(
        self, prompt: Tokens = (), n_generated: int = 0, shared_by: Hashable | None = None
    ) -> None:
        self.n_tokens = len(prompt) + n_generated
        self.is_replay = n_generated > 0
        self._tokens = prompt
        self._shared_by = shared_by
        self._prefix: tuple[int, ...] | None = None

    @property
    def prefix(self) -> tuple[int, ...]:
        """A hash for each whole block of the prompt. Computed when a strategy first asks for it."""
        if self._prefix is None:
            known = self._shared_by is not None
            self._prefix = prefix_of(self._tokens, self._shared_by) if known else ()
        return self._prefix


class Strategy(Protocol):
    """Chooses among the workers of one fingerprint. One object for each fingerprint."""

    def choose(self, arrival: Arrival, loads: Loads) -> Epoch | None:
        """A worker with room; None if all are full."""
        ...

    def sent(self, arrival: Arrival, worker: Epoch) -> None:
        """The sequence was started on this worker, which another rule may have chosen."""
        ...
