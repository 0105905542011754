"""llama.cpp alone, and how far it moves a lead by itself."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import llama_cpp.llama_cpp as lc
import numpy as np

from gpufc.config import KvType
from tests.models.reference import BATCH_TOKENS, Reference
from tests.models.table.judging import Wanted

PASSES = (BATCH_TOKENS, 100, 64, 33, 8, 1)
"""Sizes of passes in which the same tokens are computed."""

TAILS = ((), (1,), (3,), (1,) * 32)
"""Sizes of the last passes: none of their own, few tokens behind a prefix from a cache, and the
tokens of an answer."""

BEHIND = (1, 77)
"""Cells of another sequence before those of the tokens. A shift by anything but 16 changes the
order in which attention sums."""


class Alone(Reference):
    """See `Reference`. `moved` is a `judging.Moved`."""

    N_SEQUENCES = 2

    def __init__(
        self, path: Path, n_ctx: int, kv: KvType = KvType.F16, passes: Sequence[int] = PASSES
    ) -> None:
        super().__init__(path, n_ctx, kv)
        self._passes = passes

    def wanted(self, prompt: Sequence[int], n_tokens: int) -> Wanted:
        """The greedy answer."""
        found = self.answer(prompt, n_tokens)
        return Wanted(found.tokens, found.leads)

    def moved(self, tokens: Sequence[int], first: int, second: int) -> float:
        """See `judging.Moved`: the range of the lead over sizes of passes, of the last pass, and
        over places in the cache."""
        ways = [(size, tail, 0) for size in self._passes for tail in TAILS]
        ways += [(self._passes[0], (1,), n_cells) for n_cells in BEHIND]
        found = [self._after(tokens, *way) for way in ways]
        leads = [float(logits[first] - logits[second]) for logits in found]
        return max(leads) - min(leads)

    def _after(
        self, tokens: Sequence[int], size: int, tail: Sequence[int], n_before: int
    ) -> np.ndarray:
        """The logits after all tokens, in passes of this size and then of those of `tail`, behind
        `n_before` cells of another sequence."""
        lc.llama_memory_clear(lc.llama_get_memory(self._context), True)
        self._fill(n_before)
        end = max(0, len(tokens) - sum(tail))
        starts = [*range(0, end, size), *accumulate(tail[:-1], initial=end), len(tokens)]
        for start, stop in pairwise(starts):
            if part := list(tokens[start:stop]):
                logits = self._logits(part)
        return logits

    def _fill(self, n_cells: int) -> None:
        """Compute so many tokens of the other sequence."""
        batch = lc.llama_batch_init(max(1, n_cells), 0, 1)
        batch.n_tokens = n_cells
        for at in range(n_cells):
            batch.token[at], batch.pos[at], batch.logits[at] = 40, at, at == n_cells - 1
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, 1
        assert not n_cells or lc.llama_decode(self._context, batch) == 0
        lc.llama_batch_free(batch)
