"""Drafts for the sequences of a step on a device: all of one length, for as long as they pay. Pure.

A GPU's launch is prepared for one shape of a pass: in the two steps after the number of tokens has
changed the same pass takes some 5 ms longer, the time of several tokens. So what counts is not
whether the next draft will be right, but whether a stretch of text is worth two such changes.
Drafts begin when they would have saved about as much as one change costs, and end when they have
lost about as much: sums that are never below zero, so that only what came last counts.
(CUSUM: Page, Continuous inspection schemes, 1954.)
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
"""With the token before them 8, the most that llama.cpp's kernels for few tokens take."""

BEGIN_S = 0.012
END_S = 0.014
"""What drafts must seem to have saved before they begin, and to have lost before they end."""

_UNTRIED = 0.5
"""What a step with drafts takes longer, in plain ones, as long as there was none."""

_PROBING = 0.01
"""The share of the time in which a drafter that costs something is asked only to learn."""


class _Price(NamedTuple):
    """Seconds, for the sequences of a step: what a further token of one of them is worth, and what
    a step with drafts takes longer."""

    token_s: float
    drafts_s: float


class _Track(Struct):
    """One sequence: the draft for what comes after its first `n_known` tokens; 0: none yet.

    `covered` tokens have come that the draft before them had, had there been one; a step with
    drafts would bring `tokens_per_step`, of late. It is not looked at for another `rest` steps.
    """

    rates: AcceptanceRates
    n_known: int = 0
    draft: Draft = Draft([], 0)
    covered: int = 0
    tokens_per_step: float = 1.0
    rest: int = 0

    def would_have_saved(self, came: list[int], price: _Price) -> float:
        """What drafts would have saved with these tokens, if the sequence were alone."""
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

    def learn(self, came: list[int]) -> None:
        """How often drafts are right, from what came in the last one's place."""
        evidence = self.draft.evidence
        for guess, token in zip(self.draft.tokens, came, strict=False):
            self.rates.learn(evidence, guess == token)
            if guess != token:
                break
            evidence += 1


class PerStretchSpeculator:
    """One state for all sequences: either every one of them has drafts or none has."""

    def __init__(self, drafter: Drafter, costs: StepCosts) -> None:
        self._drafter = drafter
        self._costs = costs
        self._tracks: dict[RequestNo, _Track] = {}
        self._has_drafts = False
        self._gave_drafts = False
        """Whether the last step had them: they are decided on beside a step, for the next one."""
        self._sum_s = 0.0
        """Saved since there are no drafts, or lost since there are."""

    @property
    def is_quiet(self) -> bool:
        """Whether drafts are only compared with what comes, for now, so that they may be asked for
        beside a step. A model that guesses is asked on the device that computes the step."""
        return not self._has_drafts and self._drafter.position_s is None

    def draft_all(self, requests: Sequence[DraftRequest], *, n_decoding: int) -> list[list[int]]:
        """No drafts, or `LENGTH` tokens for each request, fewer only where its limit is less.

        `n_useful` is ignored: another length costs more than tokens past the end.
        """
        price = self._price(len(requests), n_decoding) if requests else None
        if price is None:
            self._gave_drafts = False
            return [[] for _ in requests]
        if len(requests) * LENGTH * price.token_s <= price.drafts_s:  # even if all are right
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
        """None while costs are not known."""
        n_verified = n_decoding + n_drafted * LENGTH
        plain_s = self._costs.settled_seconds(n_decoding, n_decoding)
        if plain_s is None:
            return None
        with_s = self._costs.settled_seconds(n_verified, n_verified)
        longer_s = _UNTRIED * plain_s if with_s is None else with_s - plain_s
        drafting_s = LENGTH * (self._drafter.position_s or 0.0)
        return _Price(plain_s / n_decoding, max(0.0, longer_s) + drafting_s)

    def _saved(self, requests: Sequence[DraftRequest], price: _Price) -> float:
        """What drafts have saved in the step before this one, or would have."""
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
            if len(tokens) > LENGTH + 1:  # there were steps without guesses
                track.covered, tokens = 0, []
            alone_s = track.would_have_saved(tokens, price)
        if len(tracks) == 1:
            return alone_s
        # of a step with drafts, that part which would have been in one without: it brings more
        rates = [track.tokens_per_step for track in tracks]
        gained = sum(rates) - len(rates)
        return (gained * price.token_s - price.drafts_s) * len(rates) / sum(rates)

    def _track(self, request: DraftRequest) -> _Track:
        track = self._tracks.get(request.key)
        if track is None:
            track = self._tracks[request.key] = _Track(AcceptanceRates(self._drafter.assumed_rate))
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
                track.learn(request.tokens[track.n_known :])
            track.draft, track.n_known = draft, len(request.tokens)

    def _probe(self, requests: Sequence[DraftRequest], price: _Price) -> None:
        """Ask for drafts that are only compared, now and then."""
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
        guessed = self._tracks[request.key].draft.tokens
        return (guessed + request.tokens[-1:] * LENGTH)[: min(LENGTH, request.limit)]


def _expected(track: _Track) -> float:
    """Tokens of a whole draft that are right, by the odds; none of a model that has none to say."""
    if not track.draft.tokens:
        return 0.0
    return float(sum(accumulate(map(track.rates.rate, range(LENGTH)), mul)))
