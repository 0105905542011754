"""How long a step takes by the number of its tokens, learnt from the steps that there were.

Pure: who has a clock calls `observe`. Nothing is computed for the sake of measuring: prefills give
the cost of many tokens, decoding steps that of few, and drafts what lies between.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from math import inf

from msgspec import Struct

_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)
"""Steps of at least so many tokens, and less than the next, are taken together."""

_MEMORY = 16
"""Of how many steps, about, a mean is."""

_FORGOTTEN_AFTER = 256
"""Steps after which a size that was not seen again is interpolated. Else one step that was slow by
accident would keep drafts of that length from being tried for ever."""


class _Mean(Struct):
    n_tokens: float = 0.0
    seconds: float = 0.0
    count: int = 0
    last: int = 0


class StepCosts:
    """Seconds of a step as a function of its tokens: measured means, straight lines between.

    It never falls: where larger steps took less time, so would the smaller one have.
    """

    def __init__(self) -> None:
        self._means: dict[int, _Mean] = {}
        self._points: list[tuple[float, float]] = []
        self._n_steps = 0

    def observe(self, n_tokens: int, seconds: float) -> None:
        """A step of `n_tokens` ≥ 1 (all of its batch) took `seconds`, device and host."""
        self._n_steps += 1
        mean = self._means.setdefault(bisect_right(_SIZES, n_tokens), _Mean())
        mean.count = min(mean.count + 1, _MEMORY)
        mean.n_tokens += (n_tokens - mean.n_tokens) / mean.count
        mean.seconds += (seconds - mean.seconds) / mean.count
        mean.last = self._n_steps
        self._forget()
        self._points = _rising((mean.n_tokens, mean.seconds) for mean in self._means.values())

    def seconds(self, n_tokens: int) -> float | None:
        """The expected seconds of a step of `n_tokens`; None until two sizes have been seen.

        Fewer tokens than were seen cost what the fewest did; more, on the line of the most.
        """
        points = self._points
        if len(points) < 2:
            return None
        if n_tokens <= points[0][0]:
            return points[0][1]
        right = min(bisect_left(points, (n_tokens,)), len(points) - 1)
        (n_left, s_left), (n_right, s_right) = points[right - 1], points[right]
        return s_left + (s_right - s_left) * (n_tokens - n_left) / (n_right - n_left)

    def _forget(self) -> None:
        """The smallest and the largest size stay: what lies between is a line without them."""
        stale = self._n_steps - _FORGOTTEN_AFTER
        for size in sorted(self._means)[1:-1]:
            if self._means[size].last < stale:
                del self._means[size]


def _rising(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    rising = []
    least = inf
    for n_tokens, seconds in sorted(points, reverse=True):
        least = min(least, seconds)
        rising.append((n_tokens, least))
    return rising[::-1]
