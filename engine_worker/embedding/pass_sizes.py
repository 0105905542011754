"""The size of a pass that computes the most tokens a second, learnt from passes. Pure.

An encoder computes the attention of all tokens of a pass with each other and masks most of it, so
large passes cost more a token. Each pass has a price of its own, so small ones do, too. The best
size depends on the processor, its threads and the model: `NOTES.md`.
"""

from collections import deque
from statistics import median

SIZES = (128, 256, 512)
"""Tokens of a pass, at most, on a processor."""

ON_DEVICE = (512,)
"""The same on a device."""

LONGEST_S = 0.5
"""No size is chosen that takes longer: a sequence that comes meanwhile waits for the pass. The
smallest size is always allowed."""

_TRIES = 3
_KEPT = 64
"""Passes of the best size after which all sizes are tried again: the machine may have changed."""


class PassSizes:
    """Invariant: the costs of a size are those of its last `_TRIES` passes."""

    def __init__(self, sizes: tuple[int, ...] = SIZES) -> None:
        """`sizes` ascend."""
        self._sizes = sizes
        self._costs: dict[int, deque[float]] = {size: deque(maxlen=_TRIES) for size in sizes}
        self._n_kept = 0

    def best(self) -> int:
        """The size of the next pass: one that has not been tried enough, else the cheapest."""
        allowed = self._allowed()
        for size in allowed:
            if len(self._costs[size]) < _TRIES:
                return size
        self._n_kept += 1
        if self._n_kept > _KEPT:
            self._n_kept = 0
            for costs in self._costs.values():
                costs.clear()
            return self._sizes[0]
        return min(allowed, key=self._cost)

    def computed(self, size: int, n_tokens: int, seconds: float) -> None:
        """A pass for which `size` was chosen had `n_tokens` and took `seconds`. One that is less
        than half full shows nothing: too few inputs waited."""
        if 2 * n_tokens >= size:
            self._costs[size].append(seconds / n_tokens)

    def _allowed(self) -> list[int]:
        allowed = [self._sizes[0]]
        for size in self._sizes[1:]:
            if not self._costs[allowed[-1]] or size * self._cost(allowed[-1]) > LONGEST_S:
                break
            allowed.append(size)
        return allowed

    def _cost(self, size: int) -> float:
        return median(self._costs[size])
