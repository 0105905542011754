"""The finder for steps in which every row needs only its largest logit: greedy decoding."""

import numpy as np

from engine_worker.backend.candidates import (
    Candidates,
    ChangedLogits,
    Counts,
    Logits,
    RowMasks,
    apply_temporarily,
    masked,
)
from engine_worker.sampling.threads import RowThreads


class Argmax:
    """Reads each row once. Implements `CandidateFinder`.

    Honours masks and changes. Declines steps with a `k` above 1; leaves out rows with a largest
    logit that is not finite.
    """

    def __init__(self, threads: RowThreads) -> None:
        self._threads = threads

    def find(
        self, logits: Logits, k: Counts, changed: ChangedLogits, masks: RowMasks | None
    ) -> Candidates | None:
        if k.max() != 1:
            return None
        n_rows, n_vocab = logits.shape
        ids = np.empty(n_rows, np.intp)

        def search(rows: slice) -> None:
            logits[rows].argmax(axis=1, out=ids[rows])

        with apply_temporarily(changed, logits.reshape(-1)):
            self._threads.share(n_rows, n_vocab, search)
            best = logits[np.arange(n_rows), ids]
            found = np.isfinite(best)
            found &= k == 1
            if masks is not None:
                self._search_allowed(logits, ids, best, masks)
                found &= best > -np.inf
        rows = found.nonzero()[0]
        if len(rows) < n_rows:
            k, ids, best = k[rows], ids[rows], best[rows]
        return Candidates(rows, k, ids[:, None], best[:, None])

    def _search_allowed(self, logits: Logits, ids: Counts, best: Logits, masks: RowMasks) -> None:
        """Search again, within its mask, each row with a forbidden largest logit."""
        again = (~masks.allow(masks.rows, ids[masks.rows])).nonzero()[0]

        def search(part: slice) -> None:
            memory = np.empty(32 * masks.words.shape[1], np.float32)
            for at in again[part].tolist():
                row = masks.rows[at]
                left = masked(logits[row], masks.words[at], memory)
                ids[row] = left.argmax()
                best[row] = left[ids[row]]

        self._threads.share(len(again), logits.shape[1], search)
