"""llama.cpp alone, and how far it moves a lead by itself."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

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

HOLE = 324
"""Cells of another sequence that is given up before the last passes, whose cells lie there then."""

BEHIND = (1, 77)
"""Cells of another sequence before those of the tokens. A shift by anything but 16 changes the
order in which attention sums."""

BESIDE = (7, 64)
"""Tokens of another sequence in each pass: of a few that answer, and of a prompt. The number of
rows chooses llama.cpp's kernels, so that a short prompt is computed in another way than alone."""

OTHER = 1
"""The other sequence."""


class Way(NamedTuple):
    """Passes of this size and then of those of `tail`, behind `n_before` cells of another sequence,
    which is given up before the tail or not. Each pass has `n_beside` tokens of that one, too."""

    size: int
    tail: Sequence[int]
    n_before: int = 0
    gives_up: bool = False
    n_beside: int = 0


class Row(NamedTuple):
    """A token of a pass."""

    token: int
    position: int
    sequence: int


class Alone(Reference):
    """See `Reference`. `moved` is a `judging.Moved`."""

    N_SEQUENCES = 2

    def __init__(
        self,
        path: Path,
        n_ctx: int,
        kv: KvType = KvType.F16,
        passes: Sequence[int] = PASSES,
        beside: Sequence[int] = BESIDE,
    ) -> None:
        super().__init__(path, n_ctx, kv)
        self._passes, self._beside = passes, beside

    def wanted(self, prompt: Sequence[int], n_tokens: int) -> Wanted:
        """The greedy answer."""
        found = self.answer(prompt, n_tokens)
        return Wanted(found.tokens, found.leads)

    def moved(self, tokens: Sequence[int], first: int, second: int) -> float:
        """See `judging.Moved`: the range of the lead over sizes of passes, of the last pass, over
        places in the cache, and over other rows of a pass."""
        usual = self._passes[0]
        ways = [Way(size, tail) for size in self._passes for tail in TAILS]
        ways += [Way(usual, (1,), n_before) for n_before in BEHIND]
        ways.append(Way(usual, TAILS[-1], HOLE, gives_up=True))
        ways += [Way(BATCH_TOKENS - n, tail, n_beside=n) for n in self._beside for tail in TAILS]
        found = [self._after(tokens, way) for way in ways]
        leads = [float(logits[first] - logits[second]) for logits in found]
        return max(leads) - min(leads)

    def _after(self, tokens: Sequence[int], way: Way) -> np.ndarray:
        """The logits after all tokens, computed in this way."""
        memory = lc.llama_get_memory(self._context)
        lc.llama_memory_clear(memory, True)
        self._fill(way.n_before)
        end = max(0, len(tokens) - sum(way.tail))
        starts = [*range(0, end, way.size), *accumulate(way.tail[:-1], initial=end), len(tokens)]
        for start, stop in pairwise(starts):
            if start == end and way.gives_up:
                lc.llama_memory_seq_rm(memory, OTHER, -1, -1)
            if not (part := list(tokens[start:stop])):
                continue
            if way.n_beside:
                logits = self._pass([*_others(way.n_beside), *_rows(part, start, 0)])
                lc.llama_memory_seq_rm(memory, OTHER, -1, -1)
            else:
                logits = self._logits(part)
        return logits

    def _fill(self, n_cells: int) -> None:
        """Compute so many tokens of the other sequence."""
        for start in range(0, n_cells, BATCH_TOKENS):
            self._pass(_others(min(BATCH_TOKENS, n_cells - start), start))

    def _pass(self, rows: Sequence[Row]) -> np.ndarray:
        """Compute a pass. Returns the logits of its last row."""
        batch = lc.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for at, row in enumerate(rows):
            batch.token[at], batch.pos[at] = row.token, row.position
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, row.sequence
            batch.logits[at] = at == len(rows) - 1
        assert lc.llama_decode(self._context, batch) == 0
        lc.llama_batch_free(batch)
        found = lc.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(found, (self._n_vocab,)).copy()


def _rows(tokens: Sequence[int], start: int, sequence: int) -> list[Row]:
    return [Row(token, at, sequence) for at, token in enumerate(tokens, start)]


def _others(n_tokens: int, start: int = 0) -> list[Row]:
    return _rows([40] * n_tokens, start, OTHER)
