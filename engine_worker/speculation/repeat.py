"""Drafts that repeat a sequence's last token, as in rules, blanks and padding. Pure."""

from collections.abc import Sequence

from engine_worker.speculation.drafter import Draft, DraftRequest
from gpufc.ids import RequestNo

MOST_COUNTED = 32
"""Equal tokens at the end that are counted as evidence: more would say nothing new."""


class Repeat:
    """Implements `Drafter` without a model and without state."""

    position_s: float | None = None

    def assumed_rate(self, evidence: int) -> float:
        """Of a token that came `evidence` times in a row the share that another one adds."""
        return evidence / (evidence + 1.0)

    def draft_all(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """`Draft.evidence` is the number of equal tokens before the last one."""
        return [_draft(request.tokens, request.limit) for request in requests]

    def forget(self, key: RequestNo) -> None:
        pass


def _draft(tokens: list[int], limit: int) -> Draft:
    if not tokens:
        return Draft([], 0)
    last, n_equal = tokens[-1], 1
    most = min(len(tokens), MOST_COUNTED + 1)
    while n_equal < most and tokens[-n_equal - 1] == last:
        n_equal += 1
    return Draft([last] * limit, n_equal - 1)
