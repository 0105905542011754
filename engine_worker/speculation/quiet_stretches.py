"""No drafts for as long as none would pay, so that steps may be begun ahead. Pure.

A step that is begun ahead has no drafts, since they follow the tokens that are about to be
accepted. It is for policies that choose drafts anew for each step.
"""

from collections.abc import Sequence

from engine_worker.speculation.drafter import DraftRequest
from engine_worker.speculation.speculator import Speculator
from gpufc.ids import RequestNo

QUIET_AFTER = 8
"""Steps without a draft worth verifying, after which the next ones are expected to have none."""


class QuietStretches:
    """Implements `Speculator` with the drafts of another one. The first of a stretch comes a step
    later: it is found beside the step before."""

    def __init__(self, inner: Speculator) -> None:
        self.max_sequences = inner.max_sequences
        self._inner = inner
        self._known: set[RequestNo] = set()
        self._n_without = QUIET_AFTER

    @property
    def is_quiet(self) -> bool:
        return self._n_without >= QUIET_AFTER

    def draft_all(self, requests: Sequence[DraftRequest], *, n_decoding: int) -> list[list[int]]:
        drafts = self._inner.draft_all(requests, n_decoding=n_decoding)
        self._known.update(request.key for request in requests)
        self._n_without = 0 if any(drafts) else self._n_without + 1
        return drafts

    def pause(self) -> None:
        self._inner.pause()
        self._n_without += 1

    def forget(self, key: RequestNo) -> None:
        self._inner.forget(key)
        self._known.discard(key)
        if not self._known:
            self._n_without = QUIET_AFTER
