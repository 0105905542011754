"""Sampling parameters of one sequence, with llama.cpp's defaults, and their bounds.

The bounds are checked twice. The front answers 400 with the field's name. The worker's decoder
refuses the message, so that no other value reaches the engine even if the front is wrong.
"""

from typing import Annotated

from msgspec import Meta, Struct

Temperature = Annotated[float, Meta(ge=0.0, le=100.0)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]


class SamplingParams(Struct, frozen=True, array_like=True):
    """Parameters of one sequence. Fixed when the request is accepted; a replay uses the same ones.

    `temperature` 0 is greedy. `top_n_sigma` 0, `top_k` 0, `top_p` 1, `min_p` 0, `typical_p` 1 and
    neutral penalties switch their step off. `repeat_last_n` counts prompt tokens too; -1 means the
    whole context. `logit_bias` holds (token id, bias) pairs; -100 or less bans the token.
    """

    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    temperature: Temperature = 0.8
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] = 40
    top_p: Fraction = 0.95
    min_p: Fraction = 0.05
    typical_p: Fraction = 1.0
    repeat_penalty: Annotated[float, Meta(gt=0.0, le=10.0)] = 1.0
    repeat_last_n: Annotated[int, Meta(ge=-1, le=1_000_000)] = 64
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    logit_bias: Annotated[tuple[tuple[int, float], ...], Meta(max_length=1000)] = ()
    ignore_eos: bool = False
    top_n_sigma: Annotated[float, Meta(ge=0.0, le=100.0)] = 0.0
