"""How many drafted tokens a step verifies: as many as pay, mostly none.

Pure. A step in which sequence i gains e_i tokens and that takes t seconds has the sequences at
rates e_i / t. Drafts raise e_i by chance and t for everybody; chosen are those that maximise the
product of all rates, which for one sequence is its tokens per second, and for many keeps one that
copies from slowing those that do not.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import expm1, log, log1p

from msgspec import Struct

from engine_worker.drafting import Draft, Drafter, DraftRequest
from engine_worker.odds import Odds
from engine_worker.step_costs import StepCosts
from gpufc.ids import RequestNo

MAX_DRAFT = 32
"""Tokens drafted for one sequence; beyond, a step is little cheaper per token, a miss dearer."""
MAX_DRAFTED = 128
"""Tokens drafted in one step, over all sequences."""

_PRICED_AGAIN_AFTER = 16
"""Steps for which prices stand, as costs change slowly."""
_LOOKED_AT = 8
"""Of many sequences without a worthwhile draft about so many are looked at in each step."""


class _Track(Struct):
    """One sequence: the draft for what comes after its first `n_known` tokens.

    It is not looked at for another `rest` steps. What it gained meanwhile is compared then.
    """

    odds: Odds
    n_known: int = 0
    draft: Draft = Draft([], 0)
    rest: int = 0

    def compare(self, tokens: list[int]) -> None:
        """Learn from what came in the place of the last draft, verified or not."""
        drafted, evidence = self.draft.tokens, self.draft.evidence
        came = tokens[self.n_known : self.n_known + len(drafted)]
        for guess, token in zip(drafted, came, strict=False):
            self.odds.learn(evidence, guess == token)
            if guess != token:
                break
            evidence += 1
        self.n_known = len(tokens)


class _Prices(Struct, frozen=True):
    """What each further token of a step takes from the logarithm of the product of rates.

    `least` is the cheapest of them; `hopeless` if no drafts pay even when all of them are right.
    """

    each: list[float]
    least: float
    hopeless: bool


class Speculation:
    """A drafter, and for each sequence how often its drafts were right.

    It need not be told what became of a draft: the next request's tokens show it. Drafts that are
    not worth verifying are compared as well, so nothing has to be tried out to learn that the text
    has turned repetitive.
    """

    def __init__(self, drafter: Drafter, costs: StepCosts) -> None:
        self._drafter = drafter
        self._costs = costs
        self._tracks: dict[RequestNo, _Track] = {}
        self._prices: dict[int, _Prices | None] = {}
        self._n_steps = 0

    def draft_all(
        self, requests: Sequence[DraftRequest], *, n_decoding: int | None = None
    ) -> list[list[int]]:
        """The tokens to verify for each request in the next step, in their order; mostly empty.

        `n_decoding` sequences gain a token in that step, those of `requests` included: all of
        them by default.
        """
        drafts: list[list[int]] = [[] for _ in requests]
        prices = self._priced(len(requests) if n_decoding is None else n_decoding)
        if prices is None or prices.hopeless:
            return drafts
        awake = [at for at, request in enumerate(requests) if self._is_awake(request)]
        asked = [_clipped(requests[at]) for at in awake]
        tracks = [self._tracks[request.key] for request in asked]
        for track, draft in zip(tracks, self._drafter.draft_all(asked), strict=True):
            track.draft = draft
        for at, track, length in zip(awake, tracks, _lengths(tracks, prices), strict=True):
            drafts[at] = track.draft.tokens[:length]
            track.rest = 0 if length else len(requests) // _LOOKED_AT
        return drafts

    def forget(self, key: RequestNo) -> None:
        """The sequence has ended. Unknown keys are ignored."""
        self._drafter.forget(key)
        self._tracks.pop(key, None)

    def _is_awake(self, request: DraftRequest) -> bool:
        """Whether to look at a sequence in this step; then its last draft has been compared."""
        track = self._tracks.get(request.key)
        if track is None:
            track = self._tracks[request.key] = _Track(Odds(self._drafter.chance))
        if track.rest:
            track.rest -= 1
            return False
        track.compare(request.tokens)
        return True

    def _priced(self, n_decoding: int) -> _Prices | None:
        """None while costs are not known."""
        if self._n_steps % _PRICED_AGAIN_AFTER == 0:
            self._prices.clear()
        self._n_steps += 1
        if n_decoding not in self._prices:
            self._prices[n_decoding] = _prices(self._costs, n_decoding)
        return self._prices[n_decoding]


def _clipped(request: DraftRequest) -> DraftRequest:
    return DraftRequest(request.key, request.tokens, min(request.limit, MAX_DRAFT))


def _prices(costs: StepCosts, n_decoding: int) -> _Prices | None:
    n_most = n_decoding + min(n_decoding * MAX_DRAFT, MAX_DRAFTED)
    seconds = [costs.seconds(n, n) for n in range(n_decoding, n_most + 1)]
    known = [value for value in seconds if value is not None]
    if len(known) < 2:
        return None
    each = [n_decoding * log(after / before) for before, after in pairwise(known)]
    hopeless = all(
        n_decoding * log1p(n_drafted / n_decoding) <= price
        for n_drafted, price in enumerate(accumulate(each), 1)
    )
    return _Prices(each, min(each), hopeless)


def _lengths(tracks: list[_Track], prices: _Prices) -> list[int]:
    """How much of each draft to verify.

    A sequence's next drafted token gains less than the one before it, so the n best offers of all
    never leave one out; how many they should be, the sums of gains and prices tell.
    """
    offers = []
    least = expm1(prices.least)
    for at, track in enumerate(tracks):
        reached, expected = 1.0, 1.0
        for evidence in range(track.draft.evidence, track.draft.evidence + len(track.draft.tokens)):
            reached *= track.odds.chance(evidence)
            if reached <= least * expected:  # not worth the cheapest token of all
                break
            offers.append((-log1p(reached / expected), at))
            expected += reached
    offers.sort()
    best = total = 0.0
    n_best = 0
    for n, ((loss, _), price) in enumerate(zip(offers, prices.each, strict=False), 1):
        total -= loss + price
        if total > best:
            best, n_best = total, n
    lengths = [0] * len(tracks)
    for _, at in offers[:n_best]:
        lengths[at] += 1
    return lengths
