"""Drafts from the sequence itself: what followed the last time that its text went like this.

Copying, quoting and editing repeat long stretches of the prompt; lists and code repeat themselves.
Pure.
"""

from collections.abc import Sequence

from engine_worker.speculation.drafter import Draft, DraftRequest
from gpufc.ids import RequestNo

NGRAM = 3
"""Tokens that agree where a copy is taken up; without such a place, one token must do."""

INDEXED_AT_ONCE = 8192
"""Tokens of a long prompt that one call indexes, in some 5 ms; drafts come when all are."""
TAKEN_SINGLY = 64
"""New tokens up to which a copy is followed through them: more than a draft and its successor."""


class PromptLookup:
    """Implements `drafting.Drafter` without a model, in microseconds.

    Keeps some 200 bytes for each token of the sequences that it follows.
    """

    position_s: float | None = None

    def __init__(self) -> None:
        self._histories: dict[RequestNo, _History] = {}

    def assumed_rate(self, evidence: int) -> float:
        """See `Drafter`. Fitted to edited code and to tables, where a copy breaks off often."""
        return 1.0 - 1.0 / (1.0 + 0.35 * evidence)

    def draft_all(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """See `Drafter`. `evidence` counts the tokens that agreed before the draft."""
        return [self._draft(request) for request in requests]

    def forget(self, key: RequestNo) -> None:
        """See `Drafter`."""
        self._histories.pop(key, None)

    def _draft(self, request: DraftRequest) -> Draft:
        history = self._histories.get(request.key)
        if history is None:
            history = self._histories[request.key] = _History()
        history.follow(request.tokens)
        return history.draft(request.tokens, request.limit)


class _History:
    """Where each n-gram and each token of a sequence ended last, and where it seems to go on.

    `source` is the place of the token that should come next, 0 if there is none. It is followed
    until it is wrong, rather than looked up anew: the copy of a long text leads through many
    n-grams that stand elsewhere too. `matched` tokens before it are also the sequence's last.
    """

    def __init__(self) -> None:
        self._n_known = 0
        self._after_ngram: dict[tuple[int, ...], int] = {}
        self._after_token: dict[int, int] = {}
        self._source = self._matched = 0

    def follow(self, tokens: list[int]) -> None:
        """Take in what is new at the end of `tokens`, or some of it if it is very much."""
        if len(tokens) - self._n_known > TAKEN_SINGLY:
            self._index(tokens, min(len(tokens) - 1, self._n_known + INDEXED_AT_ONCE))
        if len(tokens) - self._n_known <= TAKEN_SINGLY:
            for end in range(self._n_known + 1, len(tokens) + 1):
                self._take(tokens, end)
            self._n_known = len(tokens)

    def draft(self, tokens: list[int], limit: int) -> Draft:
        """The tokens from the source on; a copy that reaches the end goes round in itself."""
        if not self._source:
            return Draft([], 0)
        drafted = tokens[self._source : self._source + limit]
        if len(drafted) < limit:
            drafted = (drafted * (limit // len(drafted) + 1))[:limit]
        return Draft(drafted, self._matched)

    def _index(self, tokens: list[int], stop: int) -> None:
        """Take in tokens up to `stop` without a Python step for each; nothing is followed."""
        start = max(0, self._n_known + 1 - NGRAM)
        new = tokens[start:stop]
        ngrams = zip(*(new[skipped:] for skipped in range(NGRAM)), strict=False)
        self._after_ngram.update(zip(ngrams, range(start + NGRAM, stop + 1), strict=False))
        self._after_token.update(zip(new, range(start + 1, stop + 1), strict=True))
        self._n_known, self._source = stop, 0

    def _take(self, tokens: list[int], end: int) -> None:
        token, ngram = tokens[end - 1], tuple(tokens[max(0, end - NGRAM) : end])
        if self._source and tokens[self._source] == token:
            self._source += 1
            self._matched += 1
        elif source := self._after_ngram.get(ngram):
            self._source, self._matched = source, NGRAM
        else:
            self._source, self._matched = self._after_token.get(token, 0), 1
        self._after_ngram[ngram] = self._after_token[token] = end
