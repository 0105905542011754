"""How one token is chosen from a row of logits: llama.cpp's sampler chain, without its state.

The order is llama.cpp's: logit bias → penalties → top-k → typical-p → top-p → min-p → temperature
→ draw (src/llama-sampler.cpp; the tests compare with it). What differs on purpose: a bias of -100
or less bans the token, ties fall to the lowest id, and the random number is a function of
(seed, choice, position) instead of a generator's state, so that a replay draws the same.

`logit_adjustment` is the chain up to the penalties, `sampling_chain` the rest, which `candidates`
spares from looking at every token. This module puts them together for one row, `batch_sampling`
for all rows of an engine step.
"""

import math
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from engine_worker.sampling.adjustment import Changes, adjusted, adjustment, applied, changes
from engine_worker.sampling.candidates import of_row
from engine_worker.sampling.chain import Scores, Table, draw, steps, survivors
from gpufc.errors import DecodeFailed, InvalidRequest
from gpufc.sampling import SamplingParams

Row = NDArray[np.float32]
Ids = NDArray[np.intp]


def uniform(seed: int, choice: int, position: int) -> float:
    """The random number in [0, 1) for one token. 53 bits of BLAKE2b over the three numbers."""
    text = b"%d/%d/%d" % (seed, choice, position)
    return (int.from_bytes(blake2b(text, digest_size=8).digest(), "little") >> 11) * 2.0**-53


class Sampler:
    """Chooses tokens for one sequence. Immutable once made; safe in any thread.

    Raises `InvalidRequest` for a bias on a token outside the vocabulary, or one that is no number.
    """

    def __init__(
        self, params: SamplingParams, n_vocab: int, end_tokens: Collection[int] = ()
    ) -> None:
        self.steps = steps(params, n_vocab)
        self._table = Table(np.array([self.steps]))
        self.adjustment = adjustment(params, n_vocab, end_tokens)
        self.is_argmax = self.steps.top_k == 1
        """Whether the choice is the first of the row's largest logits."""
        self._seed = params.seed
        self.n_vocab = n_vocab

    def uniform(self, choice: int, position: int) -> float:
        """The random number for the token at `position` of the sequence."""
        # where top-k leaves one token any number draws it
        return 0.0 if self.steps.top_k == 1 else uniform(self._seed, choice, position)

    def choose(self, logits: Row, history: Sequence[int], choice: int, position: int) -> int:
        """The next token's id.

        `logits` has shape (n_vocab,) and is as before when it returns; if it may be written to,
        biases and penalties are in it meanwhile. `history` holds the prompt's and all
        generated tokens. `position` counts the generated tokens before this one. Raises
        `InvalidRequest` when biases leave no token to choose from: this ends the request only; and
        `DecodeFailed` for logits that are worth nothing: see `unusable`.
        """
        uniforms = np.array([self.uniform(choice, position)])
        return self.choose_by(logits, self.changes(history, len(history)), uniforms)

    def changes(self, history: Sequence[int], n_history: int) -> Changes | None:
        """What biases and penalties do after the first `n_history` tokens; None: nothing, ever."""
        if self.adjustment is None:
            return None
        recent = self.adjustment.recent(history, n_history)
        return changes(self.n_vocab, [0], [self.adjustment], [recent])

    def choose_by(self, logits: Row, wanted: Changes | None, uniforms: Scores) -> int:
        """The same, given the changes and the random number, shape (1,)."""
        scores, ids, whole = self._candidates(logits, wanted)
        return int(ids[draw(scores, np.array([len(ids)]), self._table, uniforms, whole)[0]])

    def distribution(self, logits: Row, history: Sequence[int]) -> tuple[Ids, Scores]:
        """The tokens that `choose` draws from, by rising id, and their probabilities."""
        scores, ids, whole = self._candidates(logits, self.changes(history, len(history)))
        kept, weights = survivors(scores, np.array([len(ids)]), self._table, whole)
        left = weights[kept]
        return ids[kept[0]], left / left.sum()

    def _candidates(self, logits: Row, wanted: Changes | None) -> tuple[Scores, Ids, float | None]:
        """What the chain takes for this one row, and the candidates' ids."""
        best, ids, values, whole = self._of_row(logits, wanted)
        if best == -np.inf and math.isfinite(logits.max()):
            raise InvalidRequest("the biases leave no token to choose from", param="logit_bias")
        if not math.isfinite(best):
            raise unusable()
        return (values.astype(np.float64) - best)[None], ids, whole

    def _of_row(self, logits: Row, wanted: Changes | None) -> tuple[float, Ids, Row, float | None]:
        """`candidates.of_row` with biases and penalties."""
        if wanted is None:
            return of_row(logits, self.steps)
        if not logits.flags.writeable:
            logits = logits.copy()
        with changed(logits, wanted):
            return of_row(logits, self.steps)


def changed(flat: Row, wanted: Changes) -> AbstractContextManager[None]:
    """While it lasts, biases and penalties are in the flat logits. Raises `DecodeFailed` where they
    would hide a logit that is no number."""
    if not len(wanted.places):
        return nullcontext()
    if not (flat[wanted.places] < np.inf).all():
        raise unusable()
    return applied(flat, adjusted(flat, wanted))


def unusable() -> DecodeFailed:
    """Where a row's largest logit is no number. NaN wins every maximum; -inf alone is legal (some
    models mask tokens so), but not as the largest one."""
    return DecodeFailed("the model computed logits that are not finite (NaN or infinite)")
