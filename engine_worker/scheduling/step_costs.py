"""How long a step takes by the number of its tokens, learnt from the steps that there were.

Pure: who has a clock calls `computed` and `sampled`. Nothing is computed for the sake of measuring:
prefills give the cost of many tokens, decoding steps that of few, and drafts what lies between.
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
"""Steps after which a size that was not seen again is interpolated, or unknown. Else one that was
slow by accident would keep drafts of that length from being tried for ever."""


_SETTLED = 2
"""Steps with as many tokens that must have gone before for one to be what others will be, on a
device: a launch is prepared for one shape, and kernels are loaded when they are first used."""


class StepCosts:
    """Seconds of a step: those that computing its tokens takes, which the model does, and those of
    choosing from its outputs, which the host does. A prefill has many tokens and one output, a
    step that verifies drafts as many of both, so one cannot be told by the other.
    """

    def __init__(self) -> None:
        self._computing = _Curve()
        self._sampling = _Curve()
        self._settled_computing = _Means()
        self._settled_sampling = _Means()
        self._last_size = 0
        self._n_alike = 0

    def computed(self, n_tokens: int, seconds: float) -> None:
        """A step of `n_tokens` ≥ 1, all of its batch, took `seconds` without its sampling."""
        self._computing.observe(n_tokens, seconds)
        self._n_alike = self._n_alike + 1 if n_tokens == self._last_size else 0
        self._last_size = n_tokens
        if self._n_alike >= _SETTLED:
            self._settled_computing.observe(n_tokens, seconds)

    def sampled(self, n_outputs: int, seconds: float) -> None:
        """To choose tokens from `n_outputs` ≥ 1 rows of logits took `seconds`, in the step that
        `computed` was last told of."""
        self._sampling.observe(n_outputs, seconds)
        if self._n_alike >= _SETTLED:
            self._settled_sampling.observe(n_outputs, seconds)

    def seconds(self, n_tokens: int, n_outputs: int) -> float | None:
        """The expected seconds of a step; None until steps of two sizes have been seen.

        Sampling is free until it was seen with two numbers of outputs: drafts show what it costs.
        """
        computing_s = self._computing.seconds(n_tokens)
        if computing_s is None:
            return None
        return computing_s + (self._sampling.seconds(n_outputs) or 0.0)

    def settled_seconds(self, n_tokens: int, n_outputs: int) -> float | None:
        """The same of a step among others with as many tokens; None until there was one."""
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
    """Seconds by size, as measured of late."""

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
        """What about so many took; None if none did."""
        mean = self._means.get(bisect_right(_SIZES, size))
        return None if mean is None else mean.seconds

    def _to_forget(self) -> list[int]:
        return list(self._means)


class _Curve(_Means):
    """The same with straight lines between.

    It never falls: where more took less time, so would the fewer have.
    """

    def __init__(self) -> None:
        super().__init__()
        self._points: list[tuple[float, float]] = []

    def observe(self, size: int, seconds: float) -> None:
        super().observe(size, seconds)
        self._points = _rising((mean.size, mean.seconds) for mean in self._means.values())

    def seconds(self, size: int) -> float | None:
        """None until two sizes were seen. Less than was seen costs what the least did; more, on
        the line of the most."""
        points = self._points
        if len(points) < 2:
            return None
        if size <= points[0][0]:
            return points[0][1]
        right = min(bisect_left(points, (size,)), len(points) - 1)
        (left_size, left_s), (right_size, right_s) = points[right - 1], points[right]
        return left_s + (right_s - left_s) * (size - left_size) / (right_size - left_size)

    def _to_forget(self) -> list[int]:
        """The smallest and the largest size stay: what lies between is a line without them."""
        return sorted(self._means)[1:-1]


def _rising(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    rising = []
    least = inf
    for size, seconds in sorted(points, reverse=True):
        least = min(least, seconds)
        rising.append((size, least))
    return rising[::-1]
