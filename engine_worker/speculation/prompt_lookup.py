"""Drafts from the sequence's own tokens: the continuation of an earlier, equal n-gram. Pure.

A predicted answer is one text more to copy from, and the first one.

Copying, quoting and editing repeat long stretches of the prompt; lists and code repeat themselves.
"""

from collections.abc import Sequence

from engine_worker.backend.port import Backend
from engine_worker.speculation.drafter import Draft, Drafter, DraftRequest, Loads
from gpufc.config import ModelConfig
from gpufc.ids import RequestNo

NGRAM = 3
"""Tokens that must agree where a copy begins. Without such a place one token is enough."""

INDEXED_AT_ONCE = 8192
"""The most tokens that one call indexes. Measured: they make a step a few ms longer."""
PREDICTED = 12
"""The evidence that an answer begins as it was predicted."""
TAKEN_SINGLY = 64
"""Up to this many new tokens are followed one by one; more are only indexed.

It must exceed a draft and the token after it, so that a copy is followed through every step."""


class PromptLookup:
    """Implements `Drafter` without a model, at the cost of microseconds a step.

    A long prompt is indexed over several calls and has no drafts before the last of them.
    """

    position_s: float | None = None

    def __init__(self) -> None:
        self._histories: dict[RequestNo, _History] = {}

    def assumed_rate(self, evidence: int) -> float:
        """Fitted to edited code and to tables, where copies break off often."""
        return 1.0 - 1.0 / (1.0 + 0.35 * evidence)

    def draft_all(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """`Draft.evidence` is the number of tokens that agreed before the draft."""
        return [self._draft(request) for request in requests]

    def forget(self, key: RequestNo) -> None:
        self._histories.pop(key, None)

    def _draft(self, request: DraftRequest) -> Draft:
        history = self._histories.get(request.key)
        if history is None:
            history = _History(request.prediction, request.n_prompt)
            self._histories[request.key] = history
        return history.draft(request.tokens, request.limit)


def load_with_lookup(_config: ModelConfig, loads: Loads) -> tuple[Backend, Drafter | None]:
    """See `LoadWith`."""
    return loads.model(), PromptLookup()


class _History:
    """An index of one sequence's n-grams and the copy that it seems to be making.

    Positions are those in the prediction, if there is one, with the sequence behind it. The index
    maps each n-gram and each token to the position after its last occurrence. `_source` is the
    position of the token expected next; the `_matched` tokens before it equal the sequence's last
    ones. A copy is followed until it is wrong instead of being looked up anew: a long copy passes
    through many n-grams that occur elsewhere too.
    """

    def __init__(self, prediction: Sequence[int], n_prompt: int) -> None:
        self._joined = list(prediction)
        self._n_predicted = len(prediction)
        self._answer_at = len(prediction) + n_prompt
        self._n_known = 0
        self._after_ngram: dict[tuple[int, ...], int] = {}
        self._after_token: dict[int, int] = {}
        self._source: int | None = None
        self._matched = 0

    def draft(self, tokens: list[int], limit: int) -> Draft:
        """What may follow `tokens`, which have grown since the last call."""
        if self._n_predicted:
            self._joined += tokens[len(self._joined) - self._n_predicted :]
            tokens = self._joined
        self._follow(tokens)
        return self._copied(tokens, limit)

    def _follow(self, tokens: list[int]) -> None:
        """Index the new tokens at the end of `tokens`, at most `INDEXED_AT_ONCE` of them."""
        if len(tokens) - self._n_known > TAKEN_SINGLY:
            stop = min(len(tokens) - 1, self._n_known + INDEXED_AT_ONCE)
            if self._n_predicted and self._n_known < self._answer_at:
                stop = min(stop, self._answer_at - 1)
            self._index(tokens, stop)
        if len(tokens) - self._n_known <= TAKEN_SINGLY:
            for end in range(self._n_known + 1, len(tokens) + 1):
                self._take(tokens, end)
            self._n_known = len(tokens)

    def _copied(self, tokens: list[int], limit: int) -> Draft:
        """The tokens from the source on, no further than the prediction if they are in it. A source
        near the sequence's end is repeated up to `limit`."""
        if self._source is None:
            return Draft([], 0)
        if self._source < self._n_predicted:
            stop = min(self._n_predicted, self._source + limit)
            return Draft(tokens[self._source : stop], self._matched)
        drafted = tokens[self._source : self._source + limit]
        if len(drafted) < limit:
            drafted = (drafted * (limit // len(drafted) + 1))[:limit]
        return Draft(drafted, self._matched)

    def _index(self, tokens: list[int], stop: int) -> None:
        """Index the tokens before `stop` with bulk operations; the copy so far is given up."""
        start = max(0, self._n_known + 1 - NGRAM)
        new = tokens[start:stop]
        ngrams = zip(*(new[skipped:] for skipped in range(NGRAM)), strict=False)
        self._after_ngram.update(zip(ngrams, range(start + NGRAM, stop + 1), strict=False))
        self._after_token.update(zip(new, range(start + 1, stop + 1), strict=True))
        self._n_known, self._source = stop, None

    def _take(self, tokens: list[int], end: int) -> None:
        """Index the token before `end`, and follow the copy or look for another one."""
        token, ngram = tokens[end - 1], tuple(tokens[max(0, end - NGRAM) : end])
        if self._source is not None and tokens[self._source] == token:
            self._source += 1
            self._matched += 1
        elif (source := self._after_ngram.get(ngram)) is not None:
            self._source, self._matched = source, NGRAM
        else:
            self._source, self._matched = self._after_token.get(token), 1
        if self._n_predicted and end == self._answer_at:
            self._source, self._matched = 0, PREDICTED
        elif self._source == self._n_predicted:
            self._source = None  # the prediction ends here
        self._after_ngram[ngram] = self._after_token[token] = end
