"""The policy that chooses the length of every draft anew for each step. Pure.

It suits processors on which each further token of a step costs time. `draft_lengths` weighs the
cost of a step by its number of tokens against the acceptance rates of each sequence.
"""

from collections.abc import Sequence
from math import ceil

from msgspec import Struct, structs

from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.speculation.acceptance import AcceptanceRates
from engine_worker.speculation.draft_lengths import (
    MAX_DRAFT,
    MAX_DRAFTED,
    Offer,
    Prices,
    worthwhile,
)
from engine_worker.speculation.drafter import Draft, Drafter, DraftRequest
from gpufc.ids import RequestNo

_PRICED_AGAIN_AFTER = 16
"""Prices are kept for this many steps, since costs change slowly."""
_LOOKED_AT = 8
"""About this many sequences without a worthwhile draft are drafted for in each step."""
_PROBING = 0.01
"""Drafts of a costly drafter that are not expected to pay may lower rates by this share."""


class _Track(Struct):
    """The last draft of one sequence, which followed its first `n_known` tokens.

    The sequence is skipped for another `rest` steps. Its draft is compared after them.
    """

    rates: AcceptanceRates
    n_known: int = 0
    draft: Draft = Draft([], 0)
    rest: int = 0

    def compare(self, tokens: list[int]) -> None:
        """Learn from the tokens that came at the last draft's positions."""
        end = self.n_known + len(self.draft.tokens)
        self.rates.compare(self.draft, tokens[self.n_known : end])
        self.n_known = len(tokens)


class PerStepSpeculator:
    """Implements `Speculator` with one track for each sequence that has been drafted for.

    With a free drafter every sequence is drafted for, and drafts that are not worth verifying are
    compared with the tokens that come. So repetitive text is noticed without verifying anything.
    With a costly drafter one token is drafted now and then instead.
    """

    max_sequences = 4
    is_quiet = False

    def __init__(self, drafter: Drafter, costs: StepCosts) -> None:
        self._drafter = drafter
        self._costs = costs
        self._rates = AcceptanceRates.of_all(drafter.assumed_rate)
        self._tracks: dict[RequestNo, _Track] = {}
        self._prices: dict[int, Prices | None] = {}
        self._n_steps = 0

    def draft_all(self, requests: Sequence[DraftRequest], *, n_decoding: int) -> list[list[int]]:
        drafts: list[list[int]] = [[] for _ in requests]
        prices = self._priced(n_decoding)
        if prices is None or prices.hopeless:
            return drafts
        awake = [at for at, request in enumerate(requests) if self._is_awake(request)]
        if not awake:
            return drafts
        asked = [_useful(requests[at]) for at in awake]
        if self._drafter.position_s is None:
            rest = len(requests) // _LOOKED_AT
            verified = self._look_then_choose(asked, prices, rest)
        else:
            verified = self._choose_then_draft(asked, prices)
        for at, tokens in zip(awake, verified, strict=True):
            drafts[at] = tokens
        return drafts

    def forget(self, key: RequestNo) -> None:
        self._drafter.forget(key)
        self._tracks.pop(key, None)

    def pause(self) -> None:
        """Change nothing: drafts are compared by position, however many steps lie between."""

    def _look_then_choose(
        self, requests: list[DraftRequest], prices: Prices, rest: int
    ) -> list[list[int]]:
        """Make all drafts, since they are free, and cut each to its worthwhile length."""
        drafts = self._drafted(requests, [request.limit for request in requests])
        rates = [self._tracks[request.key].rates for request in requests]
        pairs = zip(rates, drafts, strict=True)
        offers = [Offer(rates, draft.evidence, len(draft.tokens)) for rates, draft in pairs]
        lengths = worthwhile(offers, prices)
        self._let_rest(requests, lengths, rest)
        return [draft.tokens[:n] for draft, n in zip(drafts, lengths, strict=True)]

    def _choose_then_draft(self, requests: list[DraftRequest], prices: Prices) -> list[list[int]]:
        """Choose lengths, then make drafts of these; one token where no length pays, to learn."""
        offers = [
            Offer(self._tracks[request.key].rates, 0, min(request.limit, MAX_DRAFT))
            for request in requests
        ]
        lengths = worthwhile(offers, prices)
        self._let_rest(requests, lengths, ceil(prices.each[0] / _PROBING))
        drafts = self._drafted(requests, [max(1, length) for length in lengths])
        return [draft.tokens for draft in drafts]

    def _drafted(self, requests: list[DraftRequest], lengths: list[int]) -> list[Draft]:
        asked = [
            structs.replace(request, limit=min(request.limit, length, MAX_DRAFT))
            for request, length in zip(requests, lengths, strict=True)
        ]
        drafts = self._drafter.draft_all(asked)
        for request, draft in zip(requests, drafts, strict=True):
            self._tracks[request.key].draft = draft
        return drafts

    def _let_rest(self, requests: list[DraftRequest], lengths: list[int], rest: int) -> None:
        for request, length in zip(requests, lengths, strict=True):
            self._tracks[request.key].rest = 0 if length else rest

    def _is_awake(self, request: DraftRequest) -> bool:
        """Whether a sequence is drafted for in this step. If so, its last draft is compared."""
        track = self._tracks.get(request.key)
        if track is None:
            track = self._tracks[request.key] = _Track(self._first_rates())
        if track.rest:
            track.rest -= 1
            return False
        track.compare(request.tokens)
        return True

    def _first_rates(self) -> AcceptanceRates:
        """Those of all sequences, where drafts are free and compared whole. Of a costly drafter's
        one token would be tried, and nothing learnt of those behind it."""
        if self._drafter.position_s is None:
            return self._rates.of_new_sequence()
        return AcceptanceRates(self._drafter.assumed_rate)

    def _priced(self, n_decoding: int) -> Prices | None:
        """The prices of a step, at most `_PRICED_AGAIN_AFTER` steps old; None without costs."""
        if self._n_steps % _PRICED_AGAIN_AFTER == 0:
            self._prices.clear()
        self._n_steps += 1
        if n_decoding not in self._prices:
            self._prices[n_decoding] = self._price(n_decoding)
        return self._prices[n_decoding]

    def _price(self, n_decoding: int) -> Prices | None:
        draft_s = (self._drafter.position_s or 0.0) / max(1, n_decoding)
        seconds = []
        for n_drafted in range(1 + min(n_decoding * MAX_DRAFT, MAX_DRAFTED)):
            step_s = self._costs.seconds(n_decoding + n_drafted, n_decoding + n_drafted)
            if step_s is None:
                return None
            seconds.append(step_s + draft_s * n_drafted)
        return Prices.of(seconds, n_decoding) if n_decoding else None


def _useful(request: DraftRequest) -> DraftRequest:
    """The same request, limited to the tokens that can become part of the answer."""
    return structs.replace(request, limit=min(request.limit, request.n_useful))
