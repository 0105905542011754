"""The samplers that are steps of `sampling.chain`, which takes them for many rows at once."""

import math
from typing import NamedTuple

import numpy as np

from engine_worker.backend.candidates import Logits
from engine_worker.sampling.chain import OFF, Scores, Steps, Table, survivors
from engine_worker.sampling.reach import reach
from engine_worker.sampling.row import RowCandidates, candidates_of_row
from engine_worker.sampling.samplers.port import Model, Moment, Row
from gpufc.sampling import SamplingParams

LEAST_TEMPERATURE = 1e-20
"""At this temperature the best token is certain, and no logit is infinite when divided by it."""


class Shared(NamedTuple):
    """One step of the chain: the name of a field of `Steps`, and its value. A `temperature` of 0
    keeps the best token."""

    step: str
    value: float


def top_n_sigma(params: SamplingParams, model: Model) -> Shared | None:
    return Shared("top_n_sigma", params.top_n_sigma) if params.top_n_sigma > 0.0 else None


def top_k(params: SamplingParams, model: Model) -> Shared | None:
    return Shared("top_k", params.top_k) if 0 < params.top_k < model.n_vocab else None


def typical_p(params: SamplingParams, model: Model) -> Shared | None:
    return Shared("typical_p", params.typical_p) if params.typical_p < 1.0 else None


def top_p(params: SamplingParams, model: Model) -> Shared | None:
    return Shared("top_p", params.top_p) if params.top_p < 1.0 else None


def min_p(params: SamplingParams, model: Model) -> Shared | None:
    return Shared("log_min_p", math.log(params.min_p)) if params.min_p > 0.0 else None


def plain_temperature(params: SamplingParams) -> Shared | None:
    return Shared("temperature", params.temperature) if params.temperature != 1.0 else None


class Steady:
    """Consecutive steps of the chain as a stage. Implements `Stage`."""

    def __init__(self, steps: Steps = OFF, min_keep: int = 0) -> None:
        self._steps = steps._replace(temperature=1.0)
        self._temperature = max(steps.temperature, LEAST_TEMPERATURE)
        self._table = Table(np.array([self._steps]))
        self._min_keep = min_keep

    def find(self, row: Logits) -> RowCandidates:
        """The candidates of a whole row."""
        return candidates_of_row(row, self._steps, self._min_keep)

    def apply(self, row: Row, moment: Moment) -> Row:
        limit = reach(row.logits, self._steps.top_n_sigma)
        return self._left(row, None, None if limit == math.inf else np.array([limit]))

    def left(self, found: RowCandidates) -> Row:
        """The candidates that the steps leave, divided by the temperature."""
        row = Row(found.ids, found.logits.astype(np.float64))
        return self._left(row, found.whole, found.reaches)

    def _left(self, row: Row, whole: float | None, reaches: Scores | None) -> Row:
        if self._steps != OFF:
            row = row.likeliest(int(min(self._steps.top_k, len(row.ids))))
            scores, counts = (row.logits - row.logits.max())[None], np.array([len(row.ids)])
            kept, _ = survivors(scores, counts, self._table, whole, reaches, self._min_keep)
            row = row.kept(kept[0])
        return row.with_logits(row.logits / self._temperature)
