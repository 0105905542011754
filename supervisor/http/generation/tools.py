"""The tools that a request offers to the model, and its choice among them. Pure.

`Choice` is the one place that decides what a `tool_choice` asks for.
"""

import re
from typing import Any

import msgspec
from msgspec import Struct

from gpufc.errors import InvalidRequest
from gpufc.nesting import is_deeper

SKIPPED_HEADER = "x-gpufc-skipped-tools"
"""Names the types of tools that were left out of an answer's request."""

MAX_TOOLS_BYTES = 2 * 1024 * 1024
"""Of all definitions together: more than any context takes."""
MAX_SKIPPED_NAMED = 16

_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}
_NOT_A_WORD = re.compile(r"[^\w.-]", re.ASCII)


class ToolFunction(Struct, frozen=True):
    """A function. `strict` promises arguments that match `parameters`."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @property
    def schema(self) -> dict[str, Any]:
        """The schema of its arguments."""
        return self.parameters or _NO_PARAMETERS


class Tool(Struct, frozen=True):
    """An entry of `tools`. Only functions can be served."""

    type: str | None = None
    function: ToolFunction | None = None


class ChosenFunction(Struct, frozen=True):
    name: str


class AllowedTool(Struct, frozen=True):
    """A reference to a tool of `tools`."""

    type: str | None = None
    function: ChosenFunction | None = None


class AllowedTools(Struct, frozen=True):
    mode: str = "auto"
    tools: list[AllowedTool] = []


class ToolChoiceObject(Struct, frozen=True):
    """A `tool_choice` that is no word: one function by name, or a part of `tools`."""

    type: str
    function: ChosenFunction | None = None
    allowed_tools: AllowedTools | None = None


ToolChoice = str | ToolChoiceObject


class OfferedTools(Struct, frozen=True):
    """The functions that the model is told of, and the types of tools that were left out."""

    functions: tuple[ToolFunction, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def json(self) -> str:
        """The definitions as templates want them; empty without any."""
        if not self.functions:
            return ""
        return msgspec.json.encode([_defined(function) for function in self.functions]).decode()

    @property
    def headers(self) -> dict[str, str]:
        """The answer's header about tools that were left out."""
        return {SKIPPED_HEADER: ", ".join(self.skipped)} if self.skipped else {}


def offered(tools: list[Tool] | None, choice: ToolChoice | None) -> OfferedTools:
    """The tools of a request. Raises `InvalidRequest`.

    `none` offers no tools at all, so that no call can come.
    """
    functions = []
    skipped: dict[str, None] = {}
    for index, tool in enumerate(tools or ()):
        kind = tool.type or "function"
        if kind != "function":
            skipped[_NOT_A_WORD.sub("_", kind)[:50]] = None
        elif tool.function is None:
            raise InvalidRequest("a function tool needs a function", param=f"tools[{index}]")
        elif not tool.function.name:
            raise InvalidRequest("a function needs a name", param=f"tools[{index}].function.name")
        else:
            functions.append(tool.function)
    found = OfferedTools(tuple(_chosen(functions, choice)), tuple(skipped)[:MAX_SKIPPED_NAMED])
    if len(found.json) > MAX_TOOLS_BYTES:
        raise InvalidRequest(f"tools have at most {MAX_TOOLS_BYTES} bytes", param="tools")
    if any(is_deeper(function.parameters) for function in found.functions):
        raise InvalidRequest("the parameters of a function nest too deeply", param="tools")
    return found


def _chosen(functions: list[ToolFunction], choice: ToolChoice | None) -> list[ToolFunction]:
    """The functions that a choice leaves. A choice that must be kept is refused: only guided
    decoding could promise it."""
    match choice:
        case None | "auto":
            return functions
        case "none":
            return []
        case ToolChoiceObject(type="allowed_tools", allowed_tools=AllowedTools("auto", allowed)):
            names = {entry.function.name for entry in allowed if entry.function}
            return [function for function in functions if function.name in names]
        case "required" | "any":
            asked = repr(choice)
        case ToolChoiceObject():
            asked = f"of type {choice.type[:50]!r}"
        case _:
            raise InvalidRequest(f"{choice[:50]!r} is no tool_choice", param="tool_choice")
    raise InvalidRequest(f"tool_choice {asked} is not supported yet", param="tool_choice")


def _defined(function: ToolFunction) -> dict[str, Any]:
    """A definition in the form of Hugging Face's templates."""
    described = {"description": function.description} if function.description else {}
    return {
        "type": "function",
        "function": {"name": function.name, **described, "parameters": function.schema},
    }
