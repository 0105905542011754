"""The memory of all request bodies under way. Pure: the time comes in as an argument."""

from gpufc.errors import Overloaded

SMALL_BYTES = 64 * 1024
LONGEST_RETRY_AFTER_S = 60.0
_FOR_SMALL = 8
"""The part of the budget, as a divisor, that only small bodies may take."""
_WEIGHT = 0.1


class BodyBudget:
    """A body counts from before its first byte is read until its request has been answered.

    Invariant: `held_bytes` is at most the limit, or there is a single body. Large bodies, which
    hold `_large_bytes`, leave a part of the budget to small ones.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._large_bytes = 0
        self._held_s = 1.0

    @property
    def for_large_bytes(self) -> int:
        """The part of the budget that large ones may take."""
        return self.limit_bytes - self.limit_bytes // _FOR_SMALL

    def take(self, n_bytes: int, held: int = 0) -> None:
        """Count that many bytes in for a body that holds `held` already. Raises `Overloaded`, and
        then counts nothing."""
        n_large = _if_large(held + n_bytes) - _if_large(held)
        is_full = self.held_bytes + n_bytes > self.limit_bytes
        is_full |= n_large > 0 and self._large_bytes + n_large > self.for_large_bytes
        if self.held_bytes > held and is_full:
            wait_s = min(LONGEST_RETRY_AFTER_S, max(1.0, self._held_s))
            raise Overloaded("Too many large requests are under way", retry_after_s=wait_s)
        self.held_bytes += n_bytes
        self._large_bytes += n_large

    def give_back(self, n_bytes: int, held_s: float) -> None:
        """Count out a whole body, which was held for so long."""
        self.held_bytes -= n_bytes
        self._large_bytes -= _if_large(n_bytes)
        self._held_s += _WEIGHT * (held_s - self._held_s)


def _if_large(n_bytes: int) -> int:
    """The bytes of a body that count as a large one's."""
    return n_bytes if n_bytes > SMALL_BYTES else 0
