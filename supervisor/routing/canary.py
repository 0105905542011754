"""A canary: a share of new requests goes to the new model first, and the evidence decides. Pure.

The comparison is with the model before, in the same time and under the same load. A canary that is
equal to it is inside the margins by far, so that looking after each request gives no false alarm.
"""

import math
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

KEPT = 400
"""The latest figures of each side that are compared."""

LEAST_COMPARED = 8
"""Fewer figures of a side say nothing."""


class Side(StrEnum):
    """The model before, or the new one."""

    STABLE = "stable"
    CANARY = "canary"


class Verdict(StrEnum):
    """The state of the evidence. The last two are final."""

    UNDECIDED = "undecided"
    ROLL_BACK = "roll_back"
    TAKE_OVER = "take_over"


class CanaryRules(Struct, frozen=True, kw_only=True):
    """When there is enough evidence.

    `share` of new requests go to the canary. It takes over after `n_enough` of them ended well and
    `least_s` have passed. It is rolled back when its error rate is above the stable side's by more
    than `error_margin`, or its times above `slower` times the stable side's, each by `sigmas`
    standard deviations of chance; or when its worker has died more than `most_deaths` times. After
    `most_s` without enough requests it is rolled back.
    """

    share: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.1
    n_enough: Annotated[int, Meta(ge=1, le=1_000_000)] = 50
    least_s: Annotated[float, Meta(ge=0.0, le=604_800.0)] = 60.0
    most_s: Annotated[float, Meta(gt=0.0, le=604_800.0)] = 3600.0
    error_margin: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.01
    slower: Annotated[float, Meta(ge=1.0, le=1000.0)] = 1.5
    sigmas: Annotated[float, Meta(ge=1.0, le=10.0)] = 3.0
    most_deaths: Annotated[int, Meta(ge=0, le=1000)] = 1


class Outcome(Struct, frozen=True):
    """The end of one request. An error is the engine's, not the client's (4xx, a client that left).

    `first_s` is the time to the first token, None without one. `token_s` is the time between
    tokens, None with fewer than two. The rates of chats with different lengths of prompts and
    answers are comparable because the sides get them at random.
    """

    ok: bool
    first_s: float | None = None
    token_s: float | None = None


class _Record:
    """The outcomes of one side."""

    def __init__(self) -> None:
        self.n_ok = 0
        self.n_errors = 0
        self.first_s: deque[float] = deque(maxlen=KEPT)
        self.token_s: deque[float] = deque(maxlen=KEPT)

    def add(self, outcome: Outcome) -> None:
        self.n_ok += outcome.ok
        self.n_errors += not outcome.ok
        if outcome.first_s is not None:
            self.first_s.append(outcome.first_s)
        if outcome.token_s is not None:
            self.token_s.append(outcome.token_s)

    @property
    def n(self) -> int:
        return self.n_ok + self.n_errors


class Canary:
    """One canary, from its start to its verdict. Owned by one model's group."""

    def __init__(self, rules: CanaryRules, now: float) -> None:
        self.rules = rules
        self._began_at = now
        self._owed = 0.0
        self._n_deaths = 0
        self._records = {side: _Record() for side in Side}
        self._final: Verdict | None = None
        self.reason = ""
        """The verdict's reason, with figures, for people."""

    def side(self) -> Side:
        """The side of the next new request. Exactly `share` of them go to the canary."""
        self._owed += self.rules.share
        if self._owed < 1.0:
            return Side.STABLE
        self._owed -= 1.0
        return Side.CANARY

    @property
    def progress(self) -> str:
        """The evidence so far, for people."""
        canary = self._records[Side.CANARY]
        return f"{canary.n_ok} of {self.rules.n_enough} requests, {canary.n_errors} failed"

    def ended(self, side: Side, outcome: Outcome) -> None:
        """A request of this side has ended."""
        self._records[side].add(outcome)

    def died(self) -> None:
        """The canary's worker has died, by no request that kills both sides and by no hand."""
        self._n_deaths += 1

    def verdict(self, now: float) -> Verdict:
        """The verdict by now. A final one stays."""
        if self._final is None:
            found = self._found(now)
            if found is Verdict.UNDECIDED:
                return found
            self._final = found
        return self._final

    def _found(self, now: float) -> Verdict:
        rules, age_s = self.rules, now - self._began_at
        canary = self._records[Side.CANARY]
        self.reason = self._fault()
        if self.reason:
            return Verdict.ROLL_BACK
        if canary.n_ok >= rules.n_enough and age_s >= rules.least_s:
            self.reason = f"{canary.n_ok} of {canary.n} requests ended well in {age_s:.0f} s"
            return Verdict.TAKE_OVER
        if age_s >= rules.most_s:
            self.reason = f"only {canary.n_ok} of {rules.n_enough} requests in {age_s:.0f} s"
            return Verdict.ROLL_BACK
        return Verdict.UNDECIDED

    def _fault(self) -> str:
        """Why the canary is worse; empty as long as that is not certain."""
        rules = self.rules
        stable, canary = self._records[Side.STABLE], self._records[Side.CANARY]
        if self._n_deaths > rules.most_deaths:
            return f"its worker died {self._n_deaths} times"
        if _more_errors(canary, stable, rules.error_margin) > rules.sigmas:
            return (
                f"{canary.n_errors} of {canary.n} requests failed,"
                f" and {stable.n_errors} of {stable.n} of the model before"
            )
        for what, ours, before in (
            ("the first token", canary.first_s, stable.first_s),
            ("a token", canary.token_s, stable.token_s),
        ):
            if _is_slower(ours, before, rules.slower, rules.sigmas):
                return (
                    f"{what} takes {_middle(ours):.3f} s, and {_middle(before):.3f} s of the model"
                    " before"
                )
        return ""


def _more_errors(canary: _Record, stable: _Record, margin: float) -> float:
    """How many standard deviations the canary's error rate is above the stable one and the margin.

    With one error and one success added to each side, as Agresti and Caffo (2000) do, so that few
    requests, and sides without an error, are not certain of anything. The variance is the larger
    one of both estimates, of the sides apart and pooled.
    """
    n, m = canary.n + 2, stable.n + 2
    ours, before = (canary.n_errors + 1) / n, (stable.n_errors + 1) / m
    both = (canary.n_errors + stable.n_errors + 2) / (n + m)
    apart = ours * (1.0 - ours) / n + before * (1.0 - before) / m
    pooled = both * (1.0 - both) * (1.0 / n + 1.0 / m)
    return (ours - before - margin) / math.sqrt(max(apart, pooled))


def _is_slower(ours: Sequence[float], before: Sequence[float], ratio: float, sigmas: float) -> bool:
    """Whether our times are longer than `ratio` times those before, by the rank sum test of Mann
    and Whitney: outliers count as one rank, and no distribution is assumed."""
    n, m = len(ours), len(before)
    if min(n, m) < LEAST_COMPARED:
        return False
    ranked = sorted([(one, 1) for one in ours] + [(one * ratio, 0) for one in before])
    rank_sum = sum(rank for rank, (_, is_ours) in enumerate(ranked, 1) if is_ours)
    above = rank_sum - n * (n + 1) / 2
    deviation = math.sqrt(n * m * (n + m + 1) / 12.0)
    return (above - n * m / 2.0) / deviation > sigmas


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
