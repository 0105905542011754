"""The sum of a choice's parts, for answers that are not streamed."""

from collections.abc import Iterable

from msgspec import Struct

from gpufc.protocol import FinishReason, TokenLogprobs
from supervisor.answers.parser import NewParser
from supervisor.answers.parts import (
    Begun,
    Ended,
    Logprobs,
    Part,
    Reasoning,
    Text,
    ToolCallArguments,
    ToolCallBegun,
    joined,
)


class ToolCall(Struct, frozen=True):
    """One call with all of its arguments, as JSON text. `id` is the model's own, if any."""

    name: str
    arguments: str
    id: str | None = None


class WholeAnswer(Struct, frozen=True):
    """One choice, finished. `parts` have its text, calls and end in their order, with adjoining
    pieces as one."""

    text: str
    reasoning: str
    calls: tuple[ToolCall, ...]
    ended: Ended
    parts: tuple[Part, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] = ()


def whole_answer(texts: Iterable[str], reason: FinishReason, new_parser: NewParser) -> WholeAnswer:
    """The answer that a log's texts and end mean."""
    parser = new_parser()
    return collected((*parser.feed("".join(texts)), *parser.end(reason)))


def collected(parts: Iterable[Part]) -> WholeAnswer:
    """The whole answer of one choice, of all of its parts. Raises `ValueError` without `Ended`."""
    text: list[str] = []
    reasoning: list[str] = []
    begun: list[ToolCallBegun] = []
    arguments: list[list[str]] = []
    ended: Ended | None = None
    logprobs: list[TokenLogprobs] = []
    prompt_logprobs: list[TokenLogprobs] = []
    parts = tuple(parts)
    for part in parts:
        match part:
            case Text(piece):
                text.append(piece)
            case Reasoning(piece):
                reasoning.append(piece)
            case ToolCallBegun():
                begun.append(part)
                arguments.append([])
            case ToolCallArguments(call, piece):
                arguments[call].append(piece)
            case Logprobs(tokens, prompt):
                logprobs += tokens
                prompt_logprobs += prompt
            case Ended():
                ended = part
            case Begun():
                pass
    if ended is None:
        raise ValueError("a whole answer has an end")
    calls = zip(begun, arguments, strict=True)
    return WholeAnswer(
        "".join(text),
        "".join(reasoning),
        tuple(ToolCall(call.name, "".join(pieces), call.id) for call, pieces in calls),
        ended,
        joined(part for part in parts if not isinstance(part, Begun | Logprobs)),
        tuple(logprobs),
        tuple(prompt_logprobs),
    )
