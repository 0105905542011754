"""How many pieces of a file may be under way at once. Pure.

Pieces share the connection with everything that the front sends. So the window grows until pieces
wait in queues, and shrinks then: delay is the measure, not loss.
"""

QUEUE_S = 0.03
"""The delay beyond the shortest one that a copy may add to messages behind it."""

MOST = 64


class Window:
    """The number of pieces that may be asked for ahead. `n_asked` of them are under way."""

    def __init__(self) -> None:
        self.limit = 1
        self.n_asked = 0
        self._least_s = float("inf")
        self._n_good = 0
        self._has_seen_queue = False

    @property
    def has_room(self) -> bool:
        """Whether another piece may be asked for."""
        return self.n_asked < self.limit

    def asked(self) -> None:
        """A piece was asked for."""
        self.n_asked += 1

    def came(self, took_s: float) -> None:
        """A piece has come, so long after it was asked for."""
        self.n_asked -= 1
        self._least_s = min(self._least_s, took_s)
        if took_s > self._least_s + QUEUE_S:
            self._has_seen_queue = True
            self._n_good = 0
            self.limit = max(1, self.limit // 2)
            return
        self._n_good += 1
        # with each piece at first, later once in a window, as TCP does
        if self.limit < MOST and self._n_good >= (self.limit if self._has_seen_queue else 1):
            self._n_good = 0
            self.limit += 1
