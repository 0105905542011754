"""How one token is chosen from a row of logits: llama.cpp's sampler chain, without its state.

The order is llama.cpp's: logit bias → penalties → top-n-sigma → top-k → typical-p → top-p → min-p →
temperature → draw (src/llama-sampler.cpp; the tests compare with it). Three things differ on
purpose. A bias of -100 or less bans the token. Ties fall to the lowest id. The random number is
a function of (seed, choice, position) instead of a generator's state: a replay draws the same.

A mask comes before all of it: a forbidden token is never chosen, and biases and penalties apply to
the allowed ones.

`bias` is the chain up to the penalties, `chain` the rest. `row` and the finders spare the chain
from looking at every token. This module samples one row, `batch` all rows of an engine step.
"""

import math
from collections.abc import Collection, Sequence
from hashlib import blake2b

import numpy as np

from engine_worker.backend.candidates import (
    Counts,
    Logits,
    MaskWords,
    apply_temporarily,
    masked,
)
from engine_worker.sampling.bias import BiasPlan, LogitBias, plan_bias, unusable
from engine_worker.sampling.chain import Scores, Table, draw, steps, survivors
from engine_worker.sampling.row import RowCandidates, candidates_of_row
from gpufc.errors import InvalidGrammar, InvalidRequest, RequestError
from gpufc.sampling import SamplingParams


def uniform(seed: int, choice: int, position: int) -> float:
    """The random number in [0, 1) for one token. 53 bits of BLAKE2b over the three numbers."""
    text = b"%d/%d/%d" % (seed, choice, position)
    return (int.from_bytes(blake2b(text, digest_size=8).digest(), "little") >> 11) * 2.0**-53


class Sampler:
    """The sampling of one sequence. Immutable; safe in any thread.

    Raises `InvalidRequest` for a bias on a token outside the vocabulary, or one that is NaN or
    infinite.
    """

    def __init__(
        self, params: SamplingParams, n_vocab: int, end_tokens: Collection[int] = ()
    ) -> None:
        self.steps = steps(params, n_vocab)
        self._table = Table(np.array([self.steps]))
        self.bias = LogitBias.of(params, n_vocab, end_tokens)
        # the choice is the first of the row's largest logits
        self.is_argmax = self.steps.top_k == 1
        self._seed = params.seed
        self.n_vocab = n_vocab

    def uniform(self, choice: int, position: int) -> float:
        """The random number for the token at `position` of the sequence."""
        # where top-k leaves one token, any number draws it
        return 0.0 if self.is_argmax else uniform(self._seed, choice, position)

    def choose(
        self,
        logits: Logits,
        history: Sequence[int],
        choice: int,
        position: int,
        mask: MaskWords | None = None,
    ) -> int:
        """The next token's id.

        `logits` has shape (n_vocab,). If it is writeable, biases and penalties may be written into
        it meanwhile; it is as before on return. `history` holds the prompt's and all generated
        tokens. `position` counts the generated tokens before this one.

        Raises `InvalidGrammar` if the mask, and `InvalidRequest` if biases leave no token: this
        ends the request only. Raises `DecodeFailed` for logits that are `unusable`.
        """
        plan = self.plan(history, len(history), mask)
        return self.choose_by(logits, plan, self.uniform(choice, position), mask)

    def plan(
        self, history: Sequence[int], n_history: int, mask: MaskWords | None = None
    ) -> BiasPlan:
        """The changes of one row's logits after the first `n_history` tokens."""
        penalized = () if self.bias is None else self.bias.penalized(history, n_history)
        return plan_bias(self.bias, self.n_vocab, penalized, mask)

    def choose_by(
        self, logits: Logits, plan: BiasPlan, number: float, mask: MaskWords | None = None
    ) -> int:
        """`choose`, given the changes and the random number."""
        scores, found = self._candidates(logits, plan, mask)
        ids = found.ids
        if self.is_argmax:
            return int(ids[0])
        counts, uniforms = np.array([len(ids)]), np.array([number])
        places = draw(scores, counts, self._table, uniforms, found.whole, found.reaches)
        return int(ids[places[0]])

    def distribution(
        self, logits: Logits, history: Sequence[int], mask: MaskWords | None = None
    ) -> tuple[Counts, Scores]:
        """The tokens that `choose` draws from, by rising id, and their probabilities."""
        plan = self.plan(history, len(history), mask)
        scores, found = self._candidates(logits, plan, mask)
        counts = np.array([len(found.ids)])
        kept, weights = survivors(scores, counts, self._table, found.whole, found.reaches)
        left = weights[kept]
        return found.ids[kept[0]], left / left.sum()

    def _candidates(
        self, logits: Logits, plan: BiasPlan, mask: MaskWords | None
    ) -> tuple[Scores, RowCandidates]:
        """The candidates and their scores for the chain."""
        found = self._of_row(logits, plan, mask)
        best = found.best
        if best == -np.inf and math.isfinite(logits.max()):
            raise _nothing_left(logits, mask)
        if not math.isfinite(best):
            raise unusable()
        return (found.logits.astype(np.float64) - best)[None], found

    def _of_row(self, logits: Logits, plan: BiasPlan, mask: MaskWords | None) -> RowCandidates:
        """`candidates_of_row` with mask, biases and penalties."""
        if mask is not None:
            if not math.isfinite(logits.max()):
                raise unusable()  # the mask might hide it
            changed = plan.on(logits)
            logits = masked(logits, mask)
            logits[changed.places] = changed.after
            return candidates_of_row(logits, self.steps)
        if not len(plan.places):
            return candidates_of_row(logits, self.steps)
        if not logits.flags.writeable:
            logits = logits.copy()
        with apply_temporarily(plan.on(logits), logits):
            return candidates_of_row(logits, self.steps)


def _nothing_left(logits: Logits, mask: MaskWords | None) -> RequestError:
    """The error for a row with sound logits and no token to choose from."""
    if mask is not None and masked(logits, mask).max() == -np.inf:
        return InvalidGrammar("the grammar allows no token here")
    return InvalidRequest("the biases leave no token to choose from", param="logit_bias")
