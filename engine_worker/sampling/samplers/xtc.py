"""Exclude top choices: now and then, all likely tokens but the least likely of them are dropped."""

import numpy as np
from msgspec import Struct

from engine_worker.sampling.samplers.port import Model, Moment, Row
from gpufc.sampling import SamplingParams

PURPOSE = "xtc"
"""Of its random number, which must not be the one that draws the token."""

_MOST_THRESHOLD = 0.5
"""Above it no two tokens can be likely."""


class Xtc(Struct, frozen=True):
    """Implements `Stage`. Tokens of at least `threshold` are likely."""

    probability: float
    threshold: float
    min_keep: int

    @classmethod
    def of(cls, params: SamplingParams, _model: Model) -> "Xtc | None":
        """None if it is off."""
        if params.xtc_probability == 0.0 or params.xtc_threshold > _MOST_THRESHOLD:
            return None
        return cls(params.xtc_probability, params.xtc_threshold, params.min_keep)

    def apply(self, row: Row, moment: Moment) -> Row:
        if len(row.ids) < 2 or moment.random(PURPOSE) > self.probability:
            return row
        likely = (row.chances() >= self.threshold).nonzero()[0]
        n_dropped = len(likely) - 1
        if n_dropped < 1 or len(row.ids) - n_dropped < self.min_keep:
            return row
        # equal ones rank by rising id, as everywhere in the chain
        least = likely[len(likely) - 1 - row.logits[likely][::-1].argmin()]
        kept = np.ones(len(row.ids), np.bool_)
        kept[likely] = False
        kept[least] = True
        return row.kept(kept)
