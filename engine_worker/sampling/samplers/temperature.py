"""The temperature: the same for every token, or by the entropy of its row."""

import math

import numpy as np
from msgspec import Struct

from engine_worker.sampling.samplers.port import Model, Moment, Row
from engine_worker.sampling.samplers.standard import (
    LEAST_TEMPERATURE,
    Shared,
    plain_temperature,
)
from gpufc.sampling import SamplingParams


def temperature(params: SamplingParams, _model: Model) -> "Shared | DynamicTemperature | None":
    """The temperature's step of these parameters; None if it changes nothing."""
    if params.dynatemp_range == 0.0:
        return plain_temperature(params)
    lowest = max(0.0, params.temperature - params.dynatemp_range)
    highest = params.temperature + params.dynatemp_range
    return DynamicTemperature(lowest, highest, params.dynatemp_exponent)


class DynamicTemperature(Struct, frozen=True):
    """Between `lowest` and `highest`, by the share of the greatest entropy that the row's tokens
    could have. Implements `Stage`."""

    lowest: float
    highest: float
    exponent: float

    def apply(self, row: Row, moment: Moment) -> Row:
        if len(row.ids) < 2:
            return row
        chances = row.chances()
        logs = np.log(chances, where=chances > 0.0, out=np.zeros_like(chances))
        share = max(0.0, -float((chances * logs).sum())) / math.log(len(chances))
        chosen = self.lowest + (self.highest - self.lowest) * share**self.exponent
        if chosen <= LEAST_TEMPERATURE:
            return row.best()
        return row.with_logits(row.logits / chosen)
