"""The parts of Ollama's answers that chat and generate share."""

from datetime import UTC, datetime
from typing import Any, TypedDict

import msgspec
from msgspec import UNSET, Struct, UnsetType

from gpufc.protocol import FinishReason
from supervisor.answers.parts import Ended
from supervisor.answers.whole import WholeAnswer
from supervisor.dispatch.stream import Usage
from supervisor.http.generation.dialect import Exchange
from supervisor.http.ollama.logprobs import LogprobObject, logprobs_of

NANOSECONDS = 1_000_000_000


class Figures(TypedDict):
    """Counts and times of an answer. Durations are nanoseconds."""

    total_duration: int
    load_duration: int
    prompt_eval_count: int
    prompt_eval_duration: int
    eval_count: int
    eval_duration: int


class Last(Struct, frozen=True, kw_only=True):
    """The base of a whole answer, and of the last line of a stream. Only these have counts: clients
    add up those of all lines."""

    model: str
    created_at: str
    logprobs: list[LogprobObject] | UnsetType = UNSET
    done: bool = True
    done_reason: str
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0


def figures(exchange: Exchange, usage: Usage) -> Figures:
    """The figures of an answer that has ended. `load_duration` is the whole wait for a worker."""
    timings = exchange.timings
    return {
        "total_duration": int(timings.total_s * NANOSECONDS),
        "load_duration": int(timings.queue_s * NANOSECONDS),
        "prompt_eval_count": usage.prompt,
        "prompt_eval_duration": int(timings.prompt_s * NANOSECONDS),
        "eval_count": usage.completion,
        "eval_duration": int(timings.generation_s * NANOSECONDS),
    }


def whole_logprobs(exchange: Exchange, choice: WholeAnswer) -> list[LogprobObject] | UnsetType:
    """The log probabilities of a whole answer, if the request asks for them."""
    return logprobs_of(choice.logprobs) if exchange.request.logprobs else UNSET


def done_reason(ended: Ended) -> str:
    """Ollama's word for an end. It has none of its own for an end after a call."""
    match ended.reason:
        case FinishReason.LENGTH:
            return "length"
        case FinishReason.STOP | FinishReason.CANCELLED:
            return "stop"


def written(unix_s: float) -> str:
    """A time as RFC 3339, in the spelling that Python's older `fromisoformat` reads too."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat()


def arguments_of(text: str) -> dict[str, Any] | None:
    """A call's arguments as the object that Ollama's clients need; None if they are no object, as
    when the answer was cut inside them."""
    if not text.strip():
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return None


def as_text(name: str, arguments: str) -> str:
    """A call that cannot be shown as one, as a part of the answer's text."""
    return f"{name}({arguments})"
