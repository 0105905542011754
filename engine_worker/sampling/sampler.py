"""How one token is chosen from a row of logits: llama.cpp's sampler chain.

The order is llama.cpp's: logit bias → penalties → DRY → top-n-sigma → top-k → typical-p → top-p →
min-p → XTC → temperature → draw, or that of the request's `samplers` (src/llama-sampler.cpp; the
tests compare with it). Some things differ on purpose. A bias of -100 or less bans the token. Ties
fall to the lowest id. A token that a sampler has dropped does not count in any later one. A random
number is a function of (seed, choice, position) instead of a generator's state: a replay draws the
same.

A mask comes before all of it: a forbidden token is never chosen, and biases and penalties apply to
the allowed ones.

`bias` is the chain up to the penalties, `chain` the rest. Where a request has other samplers or
another order, `samplers.row_chain` takes the place of `chain`. `row` and the finders spare the
chain from looking at every token. This module samples one row, `batch` all rows of an engine step.
"""

import math
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial
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
from engine_worker.sampling.chain import OFF, Scores, Table, survivors
from engine_worker.sampling.row import RowCandidates, candidates_of_row
from engine_worker.sampling.row_draw import draw_of_row, scores_of
from engine_worker.sampling.samplers.penalties import joined
from engine_worker.sampling.samplers.port import Model, Moment, State, TailsOf
from engine_worker.sampling.samplers.row_chain import DRAW, RowChain
from engine_worker.sampling.samplers.table import arranged
from gpufc.errors import InvalidGrammar, InvalidRequest, RequestError
from gpufc.sampling import SamplingParams

Find = Callable[[Logits], RowCandidates]

AGAIN = "again"
"""The purpose of the random number that draws a token in the place of a refused one."""


_BLOCK = 16
"""Positions whose random numbers are computed together: a single one takes much longer between
passes of the model, where nothing is in the caches."""

_MOST_BLOCKS = 512
"""More than there are sequences."""


def uniform(seed: int, choice: int, position: int, purpose: str = DRAW) -> float:
    """The random number in [0, 1) for one token. 53 bits of BLAKE2b over its arguments."""
    text = b"%d/%d/%d%s" % (seed, choice, position, purpose.encode())
    return (int.from_bytes(blake2b(text, digest_size=8).digest(), "little") >> 11) * 2.0**-53


@lru_cache(_MOST_BLOCKS)
def _uniforms(seed: int, choice: int, block: int) -> list[float]:
    start = block * _BLOCK
    return [uniform(seed, choice, at) for at in range(start, start + _BLOCK)]


class Sampler:
    """The sampling of one sequence. `state` changes with each choice of a sampler that has one;
    the rest is immutable.

    Raises `InvalidRequest` for a bias on a token outside the vocabulary, or one that is NaN or
    infinite.
    """

    def __init__(
        self,
        params: SamplingParams,
        n_vocab: int,
        end_tokens: Collection[int] = (),
        *,
        tails: TailsOf | None = None,
        state: State = (),
    ) -> None:
        """`tails` looks up the breakers of a request with DRY. `state` is that of a sequence's log:
        empty at its beginning."""
        arrangement = arranged(params, Model(n_vocab, tails) if tails else Model(n_vocab))
        self.bias = joined(LogitBias.of(params, n_vocab, end_tokens), arrangement.penalties)
        self._rows = None if arrangement.steps is not None else RowChain(arrangement)
        # a row that is sampled by itself is one that no finder is asked for
        self.steps = OFF if arrangement.steps is None else arrangement.steps
        self.state = state or (self._rows.start if self._rows is not None else ())
        self.state_before = self.state
        """That before the last choice."""
        self.table = Table(np.array([self.steps]))
        # the choice is the first of the row's largest logits
        self.is_argmax = self.steps.top_k == 1
        self._seed = params.seed
        self.n_vocab = n_vocab

    @property
    def is_plain(self) -> bool:
        """Whether its steps are those of `chain`, which can take many rows at once."""
        return self._rows is None

    def uniform(self, choice: int, position: int, purpose: str = DRAW) -> float:
        """The random number that draws the token at `position` of the sequence."""
        # where top-k leaves one token, any number draws it
        if self.is_argmax:
            return 0.0
        if purpose != DRAW:  # the next position has seldom another one for the same purpose
            return uniform(self._seed, choice, position, purpose)
        block, place = divmod(position, _BLOCK)
        return _uniforms(self._seed, choice, block)[place]

    def choose(
        self,
        logits: Logits,
        history: Sequence[int],
        choice: int,
        position: int,
        mask: MaskWords | None = None,
        n_history: int | None = None,
    ) -> int:
        """The next token's id.

        `logits` has shape (n_vocab,). If it is writeable, biases and penalties may be written into
        it meanwhile; it is as before on return. `history` holds the prompt's and all generated
        tokens; `n_history` of them come before this one, all if None. `position` counts the
        generated tokens before this one.

        Raises `InvalidGrammar` if the mask, and `InvalidRequest` if biases leave no token: this
        ends the request only. Raises `DecodeFailed` for logits that are `unusable`.
        """
        n_history = len(history) if n_history is None else n_history
        plan = self.plan(history, n_history, mask)
        if self._rows is None:
            return self.choose_by(logits, plan, self.uniform(choice, position), mask)
        moment = self._moment(history, n_history, choice, position, self.state)
        found = self._found(logits, plan, mask, partial(self._rows.find, moment=moment))
        token, state = self._rows.drawn(found, moment)
        self.state_before, self.state = self.state, state
        return token

    def plan(
        self, history: Sequence[int], n_history: int, mask: MaskWords | None = None
    ) -> BiasPlan:
        """The changes of one row's logits after the first `n_history` tokens."""
        penalized = () if self.bias is None else self.bias.penalized(history, n_history)
        return plan_bias(self.bias, self.n_vocab, penalized, mask)

    def choose_by(
        self, logits: Logits, plan: BiasPlan, number: float, mask: MaskWords | None = None
    ) -> int:
        """`choose` of a plain sampler, given the changes and the random number."""
        found = self._found(logits, plan, mask, self._plain_candidates)
        if self.is_argmax:
            return int(found.ids[0])
        return int(found.ids[draw_of_row(found, self.steps, self.table, number)])

    def distribution(
        self,
        logits: Logits,
        history: Sequence[int],
        mask: MaskWords | None = None,
        *,
        choice: int = 0,
        position: int = 0,
        state: State | None = None,
    ) -> tuple[Counts, Scores]:
        """The tokens that `choose` draws from, by rising id, and their probabilities; with another
        `state` than that of now, if it is given."""
        plan = self.plan(history, len(history), mask)
        if self._rows is not None:
            state = self.state if state is None else state
            moment = self._moment(history, len(history), choice, position, state)
            found = self._found(logits, plan, mask, partial(self._rows.find, moment=moment))
            row = self._rows.left(found, moment)
            return row.ids, row.chances()
        found = self._found(logits, plan, mask, self._plain_candidates)
        counts = np.array([len(found.ids)])
        kept, weights = survivors(scores_of(found), counts, self.table, found.whole, found.reaches)
        left = weights[kept]
        return found.ids[kept[0]], left / left.sum()

    def _moment(
        self, history: Sequence[int], n_history: int, choice: int, position: int, state: State
    ) -> Moment:
        random = partial(uniform, self._seed, choice, position)
        return Moment(history, n_history, random, state)

    def _plain_candidates(self, row: Logits) -> RowCandidates:
        return candidates_of_row(row, self.steps)

    def _found(
        self, logits: Logits, plan: BiasPlan, mask: MaskWords | None, find: Find
    ) -> RowCandidates:
        """The row's candidates. Raises the errors of `choose`."""
        found = _in_changed(logits, plan, mask, find)
        if found.best == -np.inf and math.isfinite(logits.max()):
            raise _nothing_left(logits, mask)
        if not math.isfinite(found.best):
            raise unusable()
        return found


def _in_changed(
    logits: Logits, plan: BiasPlan, mask: MaskWords | None, find: Find
) -> RowCandidates:
    """The candidates of the row with mask, biases and penalties."""
    if mask is not None:
        if not math.isfinite(logits.max()):
            raise unusable()  # the mask might hide it
        changed = plan.on(logits)
        logits = masked(logits, mask)
        logits[changed.places] = changed.after
        return find(logits)
    if not len(plan.places):
        return find(logits)
    if not logits.flags.writeable:
        logits = logits.copy()
    with apply_temporarily(plan.on(logits), logits):
        return find(logits)


def _nothing_left(logits: Logits, mask: MaskWords | None) -> RequestError:
    """The error for a row with sound logits and no token to choose from."""
    if mask is not None and masked(logits, mask).max() == -np.inf:
        return InvalidGrammar("the grammar allows no token here")
    return InvalidRequest("the biases leave no token to choose from", param="logit_bias")
