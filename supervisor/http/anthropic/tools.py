"""Tools and their choice, in Anthropic's form. Pure."""

from typing import Any

from msgspec import Struct

from supervisor.http.anthropic.blocks import refusal
from supervisor.http.generation.tools import (
    ChosenFunction,
    Tool,
    ToolChoice,
    ToolChoiceObject,
    ToolFunction,
)

OWN = "custom"
"""The type of a tool that the client defines and runs, which is also the default."""


class ToolDefinition(Struct, frozen=True):
    """An entry of `tools`. One with another type than `custom` is defined by Anthropic: the model
    knows nothing of it, so it is left out."""

    name: str | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class ChosenTool(Struct, frozen=True):
    """`tool_choice`."""

    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


def as_parallel(chosen: ChosenTool | None) -> bool | None:
    """Whether an answer may have several calls, as far as the request says."""
    if chosen is None or chosen.disable_parallel_tool_use is None:
        return None
    return not chosen.disable_parallel_tool_use


def as_tools(definitions: list[ToolDefinition] | None) -> list[Tool] | None:
    """The tools as OpenAI has them, those of other types included: `offered` tells of them.

    Raises `InvalidRequest`.
    """
    if definitions is None:
        return None
    return [_tool(one, f"tools[{index}]") for index, one in enumerate(definitions)]


def _tool(given: ToolDefinition, place: str) -> Tool:
    if given.type not in (None, OWN):
        return Tool(given.type)
    if not given.name:
        raise refusal(f"{place}.name", "a tool needs a name")
    function = ToolFunction(given.name, given.description, given.input_schema, given.strict)
    return Tool("function", function)


def as_choice(
    chosen: ChosenTool | None, definitions: list[ToolDefinition] | None
) -> ToolChoice | None:
    """The choice as OpenAI has it. Raises `InvalidRequest`."""
    match chosen:
        case None:
            return None
        case ChosenTool(type="auto" | "none" as word):
            return word
        case ChosenTool(type="any"):
            return "required"
        case ChosenTool(type="tool", name=str(name)) if name:
            for one in definitions or ():
                if one.name == name and one.type not in (None, OWN):
                    raise refusal(
                        "tool_choice.name",
                        f"{name[:64]!r} is a tool of a type that is not served",
                    )
            return ToolChoiceObject("function", ChosenFunction(name))
        case ChosenTool(type="tool"):
            raise refusal("tool_choice.name", "a chosen tool needs a name")
        case _:
            kind = chosen.type[:50]
            raise refusal("tool_choice.type", f"{kind!r} is none of auto, any, tool and none")
