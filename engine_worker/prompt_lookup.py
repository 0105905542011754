"""Drafts from the sequence itself: what followed the last time the text went like this."""

from collections.abc import Sequence

from engine_worker.drafting import Draft, DraftRequest
from gpufc.ids import RequestNo


class PromptLookup:
    """Implements `drafting.Drafter` without a model, in microseconds."""

    position_s = 0.0

    def draft_all(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        raise NotImplementedError

    def forget(self, key: RequestNo) -> None:
        raise NotImplementedError
