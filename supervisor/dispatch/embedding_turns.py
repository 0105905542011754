"""The places of requests for embeddings, and the order of their pieces. Pure.

Both are shared among owners as generation's are (`admission.py`): an owner with less than an even
share of the places gets one when all are taken, and the next piece is that of the owner with the
fewest open ones.
"""

from collections import Counter
from collections.abc import Callable

from gpufc.errors import Overloaded
from gpufc.ids import RequestNo
from supervisor.dispatch.turns import Turns

MAX_REQUESTS = 256
"""Requests that may be open at once for one model."""
RESERVE = 64
"""Beyond them, for owners with less than an even share."""
OPEN_SIZE = 64 << 10
"""Of open pieces together: the engine has work for several passes. A larger piece is open alone."""


class EmbeddingTurns:
    """One model's requests and pieces.

    Invariants: `n_requests` counts all that are open. A piece waits, or it is open and was told so
    by `begin`, until `ended`.
    """

    def __init__(self) -> None:
        self.n_requests = 0
        self._requests: Counter[str] = Counter()
        self._turns = Turns()
        self._waiting: dict[RequestNo, Callable[[], None]] = {}
        self._sizes: dict[RequestNo, int] = {}
        self._open: set[RequestNo] = set()
        self._open_size = 0

    def require_room(self, owner: str) -> None:
        """Raises `Overloaded` if the owner gets no place for one more request."""
        n_owners = len(self._requests) + (owner not in self._requests)
        is_modest = self._requests[owner] + 1 <= MAX_REQUESTS // n_owners
        if self.n_requests >= MAX_REQUESTS + (RESERVE if is_modest else 0):
            raise Overloaded("Too many inputs are waiting to be embedded", retry_after_s=1.0)

    def enter(self, owner: str) -> None:
        """A request is open."""
        self.n_requests += 1
        self._requests[owner] += 1

    def leave(self, owner: str) -> None:
        """A request has ended."""
        self.n_requests -= 1
        self._requests[owner] -= 1
        if not self._requests[owner]:
            del self._requests[owner]

    def wait(self, piece: RequestNo, owner: str, size: int, begin: Callable[[], None]) -> None:
        """A piece of a request waits. `begin` is called at its turn, perhaps now."""
        self._turns.enter(piece, owner)
        self._turns.wait(piece)
        self._sizes[piece], self._waiting[piece] = size, begin
        self._next()

    def ended(self, piece: RequestNo) -> None:
        """A piece was answered, or its request has ended."""
        self._turns.leave(piece)
        self._waiting.pop(piece, None)
        size = self._sizes.pop(piece)
        if piece in self._open:
            self._open.remove(piece)
            self._open_size -= size
        self._next()

    def _next(self) -> None:
        while (piece := self._turns.first()) is not None:
            size = self._sizes[piece]
            if self._open and self._open_size + size > OPEN_SIZE:
                return
            self._turns.begin(piece)
            self._open.add(piece)
            self._open_size += size
            self._waiting.pop(piece)()
