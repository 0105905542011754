"""The parts that a choice can gain. Parsers make them, dialects write them."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from msgspec import Struct, structs

from gpufc.protocol import FinishReason, TokenLogprobs


class Begun(Struct, frozen=True, gc=False):
    """The first part of every choice: its sequence has produced something."""


class Text(Struct, frozen=True, gc=False):
    """The next piece of the answer itself. Never empty."""

    text: str


class Reasoning(Struct, frozen=True, gc=False):
    """The next piece of the model's reasoning, beside its answer. Never empty."""

    text: str


class ToolCallBegun(Struct, frozen=True, gc=False):
    """A call of a tool, its arguments to follow. `call` numbers a choice's calls from 0 without
    gaps. `id` is the model's own, where its format has one."""

    call: int
    name: str
    id: str | None = None


class ToolCallArguments(Struct, frozen=True, gc=False):
    """The next piece of a call's arguments, as JSON text. Never empty."""

    call: int
    text: str


class Logprobs(Struct, frozen=True, gc=False):
    """The log probabilities of a choice's next tokens, where the request wants them: of every
    generated token in order, in whatever part its text ends up. They come before the parts of the
    text that the tokens end. `prompt` are those of the prompt's tokens, in the first one only.

    Parsers leave them out.
    """

    tokens: tuple[TokenLogprobs, ...]
    prompt: tuple[TokenLogprobs, ...] = ()


class Ended(Struct, frozen=True, gc=False):
    """The last part of every choice that finishes, after `n_calls` tool calls. `stop` is the stop
    string that ended it; parsers leave it out."""

    reason: FinishReason
    n_calls: int = 0
    stop: str | None = None


Piece = Text | Reasoning | ToolCallArguments
"""A part that brings more of something: two in a row of one kind are the same as one."""

Part = Begun | ToolCallBegun | Piece | Logprobs | Ended

BEGUN = Begun()


def kind_of(part: Part) -> tuple[type[Piece], int] | None:
    """Equal for pieces of the same thing; None for a part that is no piece."""
    match part:
        case Text() | Reasoning():
            return type(part), 0
        case ToolCallArguments(call):
            return type(part), call
        case Begun() | ToolCallBegun() | Logprobs() | Ended():
            return None


def merged(pieces: Sequence[Part]) -> Part:
    """Pieces of one kind as one."""
    first = pieces[0]
    if len(pieces) == 1 or not isinstance(first, Piece):
        return first
    text = "".join(piece.text for piece in pieces if isinstance(piece, Piece))
    return structs.replace(first, text=text)


def joined(parts: Iterable[Part]) -> tuple[Part, ...]:
    """The same parts with adjoining pieces of one kind as one: equal however the text was cut."""
    found: list[Part] = []
    for kind, group in groupby(parts, kind_of):
        members = list(group)
        found += members if kind is None else [merged(members)]
    return tuple(found)
