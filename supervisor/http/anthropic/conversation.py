"""From `system` and `messages` to turns as OpenAI's chat has them. Pure.

System messages may stand anywhere. Their places are kept: the worker folds them into what the
model's template can render.
"""

from itertools import groupby
from typing import Literal

from msgspec import Struct

from supervisor.http.anthropic.blocks import (
    PASSED_OVER,
    Block,
    Blocks,
    as_blocks,
    joined,
    refusal,
    result_of,
    text_of,
)
from supervisor.http.generation.history import CalledFunction, HistoryCall, Message

CHANGING_MARK = "x-anthropic-"
"""Begins a first system block that Claude Code changes with each request, for billing. No prefix
could be reused behind it."""

Role = Literal["user", "assistant", "system"]


class InputMessage(Struct, frozen=True):
    """A message as clients send it."""

    role: Role
    content: Blocks = None


Placed = tuple[str, Block]
"""A block and its place in the request."""


def conversation(system: Blocks, messages: list[InputMessage]) -> list[Message]:
    """The turns. Adjoining messages of one role are one turn; empty ones add nothing.

    Raises `InvalidRequest` for a block that cannot be served, and if nothing is left.
    """
    blocks = [
        (message.role, (f"messages[{index}].content[{at}]", block))
        for index, message in enumerate(messages)
        for at, block in enumerate(as_blocks(message.content))
        if block.type not in PASSED_OVER
    ]
    turns = _system(system)
    for role, group in groupby(blocks, lambda entry: entry[0]):
        turns += _turns(role, [placed for _, placed in group])
    if not blocks:
        raise refusal("messages", "no message has content")
    return turns


def _system(system: Blocks) -> list[Message]:
    blocks = as_blocks(system)
    if blocks and (blocks[0].text or "").startswith(CHANGING_MARK):
        blocks = blocks[1:]
    text = joined(text_of(block, f"system[{at}]") for at, block in enumerate(blocks))
    return [Message("system", text)] if text else []


def _turns(role: Role, blocks: list[Placed]) -> list[Message]:
    match role:
        case "system":
            return [Message("system", text)] if (text := _text(blocks)) else []
        case "assistant":
            return [_answer(blocks)]
        case "user":
            results = [block for _, block in blocks if block.type == "tool_result"]
            text = _text([placed for placed in blocks if placed[1].type != "tool_result"])
            said = [Message("user", text)] if text or not results else []
            return [*map(_result, results), *said]  # results belong right behind their calls


def _text(blocks: list[Placed]) -> str:
    return joined(text_of(block, place) for place, block in blocks)


def _result(block: Block) -> Message:
    return Message("tool", result_of(block), tool_call_id=block.tool_use_id)


def _answer(blocks: list[Placed]) -> Message:
    """An earlier answer: its text, its reasoning and its calls."""
    own = {"thinking", "tool_use"}
    return Message(
        "assistant",
        _text([placed for placed in blocks if placed[1].type not in own]),
        tool_calls=[_call(*placed) for placed in blocks if placed[1].type == "tool_use"] or None,
        reasoning_content=joined(block.thinking or "" for _, block in blocks) or None,
    )


def _call(place: str, block: Block) -> HistoryCall:
    if not block.name:
        raise refusal(f"{place}.name", "a tool_use block needs a name")
    return HistoryCall(block.id, CalledFunction(block.name, block.input or {}))
