"""How long a step takes by the number of its tokens, learnt from past steps.

Pure: the caller has the clock. No step is computed for the sake of measuring. Prompts show the cost
of many tokens, decoding steps that of few, and drafts the costs between.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from math import inf

from msgspec import Struct

_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)
"""Steps of at least so many tokens, and of fewer than the next number, share one mean."""

_MEMORY = 16
"""A mean is of about so many steps."""

_FORGOTTEN_AFTER = 256
"""Steps after which a size that was not seen again is forgotten. Else a single slow step would keep
drafts of that length from ever being tried again."""

_SETTLED = 2
"""On a device, a step is typical only after so many steps with equally many tokens: a launch is
captured for one shape, and kernels are loaded when they are first used."""


class StepCosts:
    """Seconds of a step: computing its tokens, and choosing from its rows of logits.

    The two are learnt apart. A step of prompts has many tokens and few rows; a step that verifies
    drafts has as many of both.
    """

    def __init__(self) -> None:
        self._computing = _Curve()
        self._sampling = _Curve()
        self._settled_computing = _Means()
        self._settled_sampling = _Means()
        self._last_size = 0
        self._n_alike = 0

    def computed(self, n_tokens: int, seconds: float) -> None:
        """Computing a step of `n_tokens` ≥ 1 in all took `seconds`."""
        self._computing.observe(n_tokens, seconds)
        self._n_alike = self._n_alike + 1 if n_tokens == self._last_size else 0
        self._last_size = n_tokens
        if self._n_alike >= _SETTLED:
            self._settled_computing.observe(n_tokens, seconds)

    def sampled(self, n_outputs: int, seconds: float) -> None:
        """Choosing from `n_outputs` ≥ 1 rows took `seconds`, in the step of the last `computed`."""
        self._sampling.observe(n_outputs, seconds)
        if self._n_alike >= _SETTLED:
            self._settled_sampling.observe(n_outputs, seconds)

    def seconds(self, n_tokens: int, n_outputs: int) -> float | None:
        """The expected seconds of a step; None until steps of two sizes have been seen.

        Choosing counts as free until it was seen with two numbers of rows, as drafts bring them.
        """
        computing_s = self._computing.seconds(n_tokens)
        if computing_s is None:
            return None
        return computing_s + (self._sampling.seconds(n_outputs) or 0.0)

    def tokens_within(self, most_s: float, most: int, n_beside: int = 0) -> int:
        """The tokens, `most` at most, with which a step beside `n_beside` decoding sequences takes
        no longer than this; `most` as long as costs are not known."""
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            if (self.seconds(n_beside + middle, max(1, n_beside)) or 0.0) <= most_s:
                low = middle
            else:
                high = middle - 1
        return low

    def settled_seconds(self, n_tokens: int, n_outputs: int) -> float | None:
        """The same of a step among steps with as many tokens; None until there was one."""
        computing_s = self._settled_computing.mean(n_tokens)
        if computing_s is None:
            return None
        return computing_s + (self._settled_sampling.mean(n_outputs) or 0.0)


class _Mean(Struct):
    size: float = 0.0
    seconds: float = 0.0
    count: int = 0
    last: int = 0


class _Means:
    """Mean seconds of recent steps, by size."""

    def __init__(self) -> None:
        self._means: dict[int, _Mean] = {}
        self._n_seen = 0

    def observe(self, size: int, seconds: float) -> None:
        self._n_seen += 1
        mean = self._means.setdefault(bisect_right(_SIZES, size), _Mean())
        mean.count = min(mean.count + 1, _MEMORY)
        mean.size += (size - mean.size) / mean.count
        mean.seconds += (seconds - mean.seconds) / mean.count
        mean.last = self._n_seen
        stale = self._n_seen - _FORGOTTEN_AFTER
        for bucket in self._to_forget():
            if self._means[bucket].last < stale:
                del self._means[bucket]

    def mean(self, size: int) -> float | None:
        """The mean for sizes like this one; None without any."""
        mean = self._means.get(bisect_right(_SIZES, size))
        return None if mean is None else mean.seconds

    def _to_forget(self) -> list[int]:
        return list(self._means)


class _Curve(_Means):
    """The means, with straight lines between them.

    Invariant: the curve never falls. Where more tokens took less time, fewer count as that fast.
    """

    def __init__(self) -> None:
        super().__init__()
        self._points: list[tuple[float, float]] = []

    def observe(self, size: int, seconds: float) -> None:
        super().observe(size, seconds)
        self._points = _rising((mean.size, mean.seconds) for mean in self._means.values())

    def seconds(self, size: int) -> float | None:
        """None until two sizes were seen. A smaller size costs as much as the smallest seen; a
        larger one lies on the last line."""
        points = self._points
        if len(points) < 2:
            return None
        if size <= points[0][0]:
            return points[0][1]
        right = min(bisect_left(points, (size,)), len(points) - 1)
        (left_size, left_s), (right_size, right_s) = points[right - 1], points[right]
        return left_s + (right_s - left_s) * (size - left_size) / (right_size - left_size)

    def _to_forget(self) -> list[int]:
        """The smallest and the largest size stay, since they cannot be interpolated."""
        return sorted(self._means)[1:-1]


def _rising(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    rising = []
    least = inf
    for size, seconds in sorted(points, reverse=True):
        least = min(least, seconds)
        rising.append((size, least))
    return rising[::-1]
