"""llama.cpp alone, and how far it moves a lead by itself."""

import ctypes
from collections.abc import Sequence

import llama_cpp.llama_cpp as lc
import numpy as np

from tests.models.reference import BATCH_TOKENS, Reference
from tests.models.table.judging import Wanted

PASSES = (BATCH_TOKENS, 100, 64, 33, 8, 1)
"""Sizes of passes in which the same tokens are computed."""


class Alone(Reference):
    """See `Reference`. `moved` is a `judging.Moved`."""

    def wanted(self, prompt: Sequence[int], n_tokens: int) -> Wanted:
        """The greedy answer."""
        found = self.answer(prompt, n_tokens)
        return Wanted(found.tokens, found.leads)

    def moved(self, tokens: Sequence[int], first: int, second: int) -> float:
        """See `judging.Moved`: the range of the lead over all sizes of passes, with the last token
        in a pass of its own and among others."""
        leads = []
        for size in PASSES:
            for ends in ((len(tokens) - 1, len(tokens)), (len(tokens),)):
                logits = self._after(tokens, size, ends)
                leads.append(float(logits[first] - logits[second]))
        return max(leads) - min(leads)

    def _after(self, tokens: Sequence[int], size: int, ends: Sequence[int]) -> np.ndarray:
        """The logits after all tokens, in passes of this size that also end at `ends`."""
        lc.llama_memory_clear(lc.llama_get_memory(self._context), True)
        start = 0
        for end in ends:
            while start < end:
                part = tokens[start : min(start + size, end)]
                array = (ctypes.c_int32 * len(part))(*part)  # the batch only points to it
                batch = lc.llama_batch_get_one(array, len(part))
                assert lc.llama_decode(self._context, batch) == 0
                start += len(part)
        row = lc.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(row, (self._n_vocab,)).copy()
