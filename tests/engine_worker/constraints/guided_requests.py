"""Guided sequences as the engine is given them."""

from typing import Any

from engine_worker.backend.fake.vocabulary import tokenize
from gpufc.constraint import Constraint
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import Generate
from gpufc.sampling import SamplingParams


def guided(number: int, constraint: Constraint, *, prompt: str, **fields: Any) -> Generate:
    """A sequence of the scripted backend; its number is its seed."""
    fields.setdefault("sampling", SamplingParams(seed=number))
    return Generate(
        Epoch(1),
        RequestNo(number),
        RequestId(f"r{number}"),
        choice=0,
        prompt_tokens=tuple(tokenize(prompt, add_special=True)),
        constraint=constraint,
        **fields,
    )
