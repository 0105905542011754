"""Penalties of tokens that have occurred: llama.cpp's repeat, frequency and presence penalty."""

from msgspec import structs

from engine_worker.sampling.bias import NO_BIAS, NO_PENALTIES, LogitBias
from engine_worker.sampling.samplers.port import Model
from gpufc.sampling import SamplingParams


def penalties(params: SamplingParams, _model: Model) -> LogitBias | None:
    """The penalties of these parameters as an `Edit`; None if they are off."""
    wanted = (
        # above zero in single precision too: -inf of a banned token times zero would be NaN
        max(params.repeat_penalty, 1e-30),
        params.frequency_penalty,
        params.presence_penalty,
    )
    if wanted == NO_PENALTIES or params.repeat_last_n == 0:
        return None
    return LogitBias(NO_BIAS.places, NO_BIAS.bias, params.repeat_last_n, wanted)


def joined(biases: LogitBias | None, penalties: LogitBias | None) -> LogitBias | None:
    """Biases and the penalties that come directly after them."""
    if biases is None or penalties is None:
        return biases or penalties
    return structs.replace(biases, last_n=penalties.last_n, penalties=penalties.penalties)
