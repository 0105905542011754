"""What a worker was computing, for the flight recorder: parameters, never a prompt. Pure.

A request that kills is found by what the batches it was in have in common; these are the facts.
"""

from typing import Any

import msgspec
from msgspec import Struct

from gpufc.ids import RequestId, RequestNo
from gpufc.protocol import Finished, FromWorker, Generate, Refused, Step
from gpufc.sampling import SamplingParams

MAX_SEQUENCES = 64


class SequenceRecord(Struct, frozen=True, kw_only=True):
    """One sequence that the worker had. `n_tokens` were generated before it got it; `parameters`
    are those that differ from the defaults, tokens and texts in them only counted."""

    no: RequestNo
    request: RequestId
    choice: int
    n_prompt_tokens: int
    n_tokens: int
    max_tokens: int | None
    parameters: dict[str, Any]


class Batch:
    """The sequences that a process has been given and has not ended. Owned by one black box."""

    def __init__(self) -> None:
        self._given: dict[RequestNo, Generate] = {}

    def given(self, sequence: Generate) -> None:
        """The process has been sent this."""
        self._given[sequence.request] = sequence

    def told(self, message: FromWorker) -> None:
        """What the process says: some of it is a sequence's end. On the hot path."""
        match message:
            case Step():
                for delta in message.deltas:
                    if delta.finish is not None:
                        self._given.pop(delta.request, None)
            case Finished() | Refused():
                self._given.pop(message.request, None)
            case _:
                pass

    def records(self, first: tuple[RequestNo, ...]) -> tuple[SequenceRecord, ...]:
        """At most `MAX_SEQUENCES` of them, those in `first` before others."""
        ordered = sorted(self._given, key=lambda no: (no not in first, no))
        return tuple(_record(self._given[no]) for no in ordered[:MAX_SEQUENCES])


def _record(sequence: Generate) -> SequenceRecord:
    return SequenceRecord(
        no=sequence.request,
        request=sequence.request_id,
        choice=sequence.choice,
        n_prompt_tokens=len(sequence.prompt_tokens),
        n_tokens=len(sequence.tokens),
        max_tokens=sequence.max_tokens,
        parameters=_parameters(sequence),
    )


def _parameters(sequence: Generate) -> dict[str, Any]:
    sampling = msgspec.structs.asdict(sequence.sampling)
    defaults = msgspec.structs.asdict(SamplingParams(seed=0))
    changed = {key: value for key, value in sampling.items() if value != defaults[key]}
    n_biased = len(changed.pop("logit_bias", ()))
    counts = {"n_logit_bias": n_biased, "n_stop": len(sequence.stop)}
    return (
        {"seed": sequence.sampling.seed}
        | changed
        | {key: count for key, count in counts.items() if count}
        | {"replay": sequence.replay.value, "cache_prompt": sequence.cache_prompt}
    )
