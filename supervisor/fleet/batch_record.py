"""The sequences that a worker computed, for the flight recorder: parameters, never a prompt. Pure.

The fatal batches of one request have parameters in common: that is how it is found.
"""

from typing import Any

import msgspec
from msgspec import Struct

from gpufc.ids import RequestId, RequestNo
from gpufc.protocol import Finished, FromWorker, Generate, Refused, Step
from gpufc.sampling import SamplingParams

MAX_RECORDED = 64


class SequenceRecord(Struct, frozen=True, kw_only=True):
    """One sequence that the worker had. `n_tokens` were generated before the worker got it.

    `parameters` differ from the defaults; tokens and texts in them are only counted."""

    no: RequestNo
    request: RequestId
    choice: int
    n_prompt_tokens: int
    n_tokens: int
    max_tokens: int | None
    parameters: dict[str, Any]


class Batch:
    """The sequences that a process was given and has not ended. Owned by one black box."""

    def __init__(self) -> None:
        self._given: dict[RequestNo, Generate] = {}

    def given(self, sequence: Generate) -> None:
        """The process was sent this sequence."""
        self._given[sequence.request] = sequence

    def told(self, message: FromWorker) -> None:
        """Note a message of the process: it may end sequences. On the hot path."""
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
        """Records of at most `MAX_RECORDED` sequences; the sequences in `first` come first."""
        ordered = sorted(self._given, key=lambda no: (no not in first, no))
        return tuple(_record(self._given[no]) for no in ordered[:MAX_RECORDED])


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
    counts = {
        "n_logit_bias": len(changed.pop("logit_bias", ())),
        "n_dry_sequence_breakers": len(changed.pop("dry_sequence_breakers", ())),
        "n_stop": len(sequence.stop),
    }
    return (
        {"seed": sequence.sampling.seed}
        | changed
        | {key: count for key, count in counts.items() if count}
        | {"replay": sequence.replay.value, "cache_prompt": sequence.cache_prompt}
    )
