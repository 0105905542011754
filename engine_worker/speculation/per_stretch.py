"""The policy for devices: drafts of one length for a whole stretch of text, or none. Pure.

A device captures a graph for one shape of a pass. The two steps after a change of shape each take
longer by the time of several tokens. So the question is not whether the next draft is right, but
whether a stretch of text is worth two changes of shape.

Drafts begin once they would have saved about the cost of one change, and end once they have lost
about as much. Both are sums that never fall below zero, so old steps stop counting (CUSUM: Page,
Continuous inspection schemes, 1954).
"""

from collections.abc import Sequence
from itertools import accumulate
from math import ceil
from operator import mul
from typing import NamedTuple

from msgspec import Struct, structs

from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.speculation.acceptance import AcceptanceRates
from engine_worker.speculation.drafter import Draft, Drafter, DraftRequest
from gpufc.ids import RequestNo

LENGTH = 7
"""Tokens of every draft: with the token before them 8, llama.cpp's limit for its small kernels."""

BEGIN_S = 0.012
"""Drafts begin once they would have saved this. Measured on one H100: a change of shape."""
END_S = 0.014
"""Drafts end once they have lost this. Measured on one H100: a change of shape."""

_UNTRIED = 0.5
"""The assumed extra time of a step with drafts, in plain steps, before one was measured."""

_PROBING = 0.01
"""A costly drafter may spend this share of the time on drafts that are only compared."""


class _Price(NamedTuple):
    """The seconds that one more token of a sequence saves, and those that drafts add to a step."""

    token_s: float
    drafts_s: float


class _Track(Struct):
    """The last draft of one sequence, which followed its first `n_known` tokens (0: no draft yet).

    While drafts are only compared, steps with drafts are imagined: `covered` tokens of the current
    one have come, and 0 means that the next token begins one. `tokens_per_step` is a running mean
    over imagined steps. A costly drafter skips the sequence for another `rest` steps.
    """

    rates: AcceptanceRates
    n_known: int = 0
    draft: Draft = Draft([], 0)
    covered: int = 0
    tokens_per_step: float = 1.0
    rest: int = 0

    def would_have_saved(self, came: list[int], price: _Price) -> float:
        """The seconds that drafts would have saved while `came` was decoded by a lone sequence."""
        saved_s = 0.0
        for at, token in enumerate(came):
            saved_s += price.token_s if self.covered else -price.drafts_s
            is_right = self.draft.tokens[at : at + 1] == [token]
            if is_right and self.covered < LENGTH:
                self.covered += 1
                self.tokens_per_step = max(self.tokens_per_step, self.covered + 1)
            else:
                self.tokens_per_step += (self.covered + 1 - self.tokens_per_step) / 2
                self.covered = 0
        return saved_s


class PerStretchSpeculator:
    """Implements `Speculator`: in every step either all sequences have drafts or none has.

    The sum of seconds counts savings while there are no drafts, and losses while there are.
    """

    max_sequences = 4

    def __init__(self, drafter: Drafter, costs: StepCosts) -> None:
        self._drafter = drafter
        self._costs = costs
        self._rates = AcceptanceRates.of_all(drafter.assumed_rate)
        self._tracks: dict[RequestNo, _Track] = {}
        self._has_drafts = False
        # the last step may have been without drafts although they have begun: a quiet speculator
        # is called while the device computes, so its decision holds from the next step on
        self._gave_drafts = False
        self._sum_s = 0.0

    @property
    def is_quiet(self) -> bool:
        """True while there are no drafts, unless the drafter computes on the step's own device."""
        return not self._has_drafts and self._drafter.position_s is None

    def draft_all(self, requests: Sequence[DraftRequest], *, n_decoding: int) -> list[list[int]]:
        """No drafts, or `LENGTH` tokens for each request, fewer only where its limit is less.

        `n_useful` is ignored: another length costs more than tokens past the end.
        """
        price = self._price(len(requests), n_decoding) if requests else None
        if price is None:
            self._gave_drafts = False
            return [[] for _ in requests]
        if len(requests) * LENGTH * price.token_s <= price.drafts_s:  # no gain if all are right
            self.pause()
            return [[] for _ in requests]
        was_quiet = self.is_quiet
        self._judge(self._saved(requests, price))
        if self._has_drafts or self._drafter.position_s is None:
            self._draft(requests)
        else:
            self._probe(requests, price)
        self._gave_drafts = self._has_drafts and not was_quiet
        if not self._has_drafts:
            return [[] for _ in requests]
        return [self._filled_up(request) for request in requests]

    def forget(self, key: RequestNo) -> None:
        self._drafter.forget(key)
        self._tracks.pop(key, None)

    def pause(self) -> None:
        if self._has_drafts or self._sum_s:
            self._change(has_drafts=False)

    def _price(self, n_drafted: int, n_decoding: int) -> _Price | None:
        """None while the cost of a plain step is unknown."""
        n_verified = n_decoding + n_drafted * LENGTH
        plain_s = self._costs.settled_seconds(n_decoding, n_decoding)
        if plain_s is None:
            return None
        with_s = self._costs.settled_seconds(n_verified, n_verified)
        longer_s = _UNTRIED * plain_s if with_s is None else with_s - plain_s
        drafting_s = LENGTH * (self._drafter.position_s or 0.0)
        return _Price(plain_s / n_decoding, max(0.0, longer_s) + drafting_s)

    def _saved(self, requests: Sequence[DraftRequest], price: _Price) -> float:
        """The seconds that drafts have saved in the last step, or would have saved without them."""
        tracks = [self._track(request) for request in requests]
        came = [
            request.tokens[track.n_known :] if track.n_known else []
            for request, track in zip(requests, tracks, strict=True)
        ]
        if self._has_drafts:
            if not self._gave_drafts:
                return 0.0
            return (
                sum(len(tokens) - 1 for tokens in came if tokens) * price.token_s - price.drafts_s
            )
        if self._drafter.position_s is not None:
            return sum(map(_expected, tracks)) * price.token_s - price.drafts_s
        alone_s = 0.0
        for tokens, track in zip(came, tracks, strict=True):
            if len(tokens) > LENGTH + 1:  # more than one step has passed: nothing was compared
                track.covered, tokens = 0, []
            alone_s = track.would_have_saved(tokens, price)
        if len(tracks) == 1:
            return alone_s
        # a step with drafts would have brought more tokens than this one did: count its share
        rates = [track.tokens_per_step for track in tracks]
        gained = sum(rates) - len(rates)
        return (gained * price.token_s - price.drafts_s) * len(rates) / sum(rates)

    def _track(self, request: DraftRequest) -> _Track:
        track = self._tracks.get(request.key)
        if track is None:
            track = self._tracks[request.key] = _Track(self._rates.of_new_sequence())
        return track

    def _judge(self, saved_s: float) -> None:
        self._sum_s = max(0.0, self._sum_s + (-saved_s if self._has_drafts else saved_s))
        if self._sum_s >= (END_S if self._has_drafts else BEGIN_S):
            self._change(has_drafts=not self._has_drafts)

    def _change(self, *, has_drafts: bool) -> None:
        self._has_drafts, self._sum_s = has_drafts, 0.0
        for track in self._tracks.values():
            track.covered = 0

    def _draft(self, requests: Sequence[DraftRequest]) -> None:
        asked = [structs.replace(request, limit=min(request.limit, LENGTH)) for request in requests]
        for request, draft in zip(requests, self._drafter.draft_all(asked), strict=True):
            track = self._tracks[request.key]
            if self._drafter.position_s is not None and track.n_known:
                track.rates.compare(track.draft, request.tokens[track.n_known :])
            track.draft, track.n_known = draft, len(request.tokens)

    def _probe(self, requests: Sequence[DraftRequest], price: _Price) -> None:
        """Let a costly drafter draft now and then, to compare its drafts with the next tokens."""
        rest = ceil(LENGTH * (self._drafter.position_s or 0.0) / (_PROBING * price.token_s))
        awake = []
        for request in requests:
            track = self._tracks[request.key]
            if track.rest:
                track.rest -= 1
            else:
                track.rest = max(LENGTH, rest)
                awake.append(request)
        if awake:
            self._draft(awake)

    def _filled_up(self, request: DraftRequest) -> list[int]:
        """The draft, padded to `LENGTH` with the last token: any token keeps the shape."""
        guessed = self._tracks[request.key].draft.tokens
        return (guessed + request.tokens[-1:] * LENGTH)[: min(LENGTH, request.limit)]


def _expected(track: _Track) -> float:
    """The expected number of accepted tokens of a whole draft; 0 if the last draft was empty."""
    if not track.draft.tokens:
        return 0.0
    return float(sum(accumulate(map(track.rates.rate, range(LENGTH)), mul)))
