"""The finder for rows whose masks allow few tokens: these are the candidates, for any chain.

A forced token, the next digit and the beginnings of a list's values are such masks. Most of the
work needs no logits, so that a device computes meanwhile (`few_tokens`).
"""

import numpy as np

from engine_worker.backend.candidates import (
    Candidates,
    ChangedLogits,
    Counts,
    FewTokens,
    Logits,
    MaskWords,
    RowMasks,
    few_candidates,
)
from engine_worker.sampling.threads import RowThreads

MOST = 64
"""Tokens that a short mask allows. The chain sorts the candidates of all rows, padded."""


def few_tokens(rows: Counts, words: MaskWords) -> FewTokens | None:
    """The tokens of the masks that allow at most `MOST`, and at least one; None if there are none.

    No bit beyond the vocabulary is set.
    """
    counts = np.bitwise_count(words.view(np.uint32)).sum(axis=1, dtype=np.intp)
    short = ((counts > 0) & (counts <= MOST)).nonzero()[0]
    if not len(short):
        return None
    counts = counts[short]
    of_word, word = words[short].nonzero()
    bits = words[short][of_word, word][:, None] >> np.arange(32, dtype=np.int32) & 1
    at, bit = bits.nonzero()
    ids = np.zeros((len(short), counts.max()), np.int64)
    ids[np.arange(ids.shape[1]) < counts[:, None]] = 32 * word[at] + bit
    return FewTokens(rows[short], counts, ids)


class FewAllowed:
    """Implements `CandidateFinder`. Answers the rows of `RowMasks.few`; leaves out a row without a
    token that is not -inf, and one with a largest logit that is not finite.

    A finder that knows of a row's soundness without reading all of it takes such rows before.
    """

    def __init__(self, threads: RowThreads) -> None:
        self._threads = threads

    def find(
        self, logits: Logits, k: Counts, changed: ChangedLogits, masks: RowMasks | None
    ) -> Candidates | None:
        found = few_candidates(logits, k, changed, masks)
        if found is None:
            return None
        rows = found.rows.tolist()
        best = np.empty(len(rows), np.float32)

        def measure(part: slice) -> None:
            for at, row in enumerate(rows[part], part.start):
                best[at] = logits[row].max()

        self._threads.share(len(rows), logits.shape[1], measure)
        sound = np.isfinite(best)
        return found if sound.all() else found.of(sound)
