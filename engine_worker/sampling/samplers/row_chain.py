"""One sequence's samplers where they are not a plain chain, run on one row by itself. Pure."""

from contextlib import ExitStack

import numpy as np

from engine_worker.backend.candidates import Logits, apply_temporarily
from engine_worker.sampling.chain import OFF, Table, draw
from engine_worker.sampling.row import RowCandidates
from engine_worker.sampling.samplers.port import Moment, Row, State
from engine_worker.sampling.samplers.table import Arrangement

_DRAW = Table(np.array([OFF]))

DRAW = ""
"""The purpose of the random number that draws the token."""


class RowChain:
    """Immutable: the state goes in and comes out."""

    def __init__(self, arrangement: Arrangement) -> None:
        self._edits = arrangement.edits
        self._head = arrangement.head
        self._stages = arrangement.stages
        self._memory = arrangement.memory

    @property
    def start(self) -> State:
        """The state before the first generated token; empty without one."""
        return self._memory.start if self._memory is not None else ()

    def find(self, logits: Logits, moment: Moment) -> RowCandidates:
        """The candidates of a whole row, which is as before on return."""
        if self._edits and not logits.flags.writeable:
            logits = logits.copy()
        with ExitStack() as edited:
            for edit in self._edits:
                plan = edit.plan(moment.history, moment.n_history)
                edited.enter_context(apply_temporarily(plan.on(logits), logits))
            return self._head.find(logits)

    def left(self, found: RowCandidates, moment: Moment) -> Row:
        """The tokens that all samplers leave."""
        row = self._head.left(found)
        for stage in self._stages:
            row = stage.apply(row, moment)
        return row

    def drawn(self, found: RowCandidates, moment: Moment) -> tuple[int, State]:
        """The chosen token, and the state after it."""
        row = self.left(found, moment)
        scores, counts = (row.logits - row.logits.max())[None], np.array([len(row.ids)])
        place = int(draw(scores, counts, _DRAW, np.array([moment.random(DRAW)]))[0])
        state = moment.state
        if self._memory is not None:
            state = self._memory.after(row, place, state)
        return int(row.ids[place]), state
