"""The tools of a Responses request as functions, and calls of functions as its items. Pure.

A function stays one. A tool of a namespace gets the name `NAMESPACE__NAME`. A custom tool becomes a
function with one text. Tools of other types are left out by the one rule of `generation.tools`.
"""

from itertools import count
from typing import Any

import msgspec
from msgspec import Struct

from gpufc.errors import InvalidRequest
from supervisor.http.generation.tools import (
    AllowedTool,
    AllowedTools,
    ChosenFunction,
    Tool,
    ToolChoice,
    ToolChoiceObject,
    ToolFunction,
)

INPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
"""The parameters of a custom tool's function. Its text may have a pattern besides."""

_JOINT = "__"
MAX_TOOLS = 1024
"""Functions and custom tools of one request, those in namespaces included."""


class Format(Struct, frozen=True):
    """The format of a custom tool's text."""

    type: str | None = None
    syntax: str | None = None
    definition: str | None = None


class Definition(Struct, frozen=True):
    """An entry of `tools`, or of a namespace's tools."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: Format | None = None
    tools: list["Definition"] | None = None


class Called(Struct, frozen=True):
    """The tool that the client knows behind a function's name."""

    name: str
    namespace: str | None = None
    is_custom: bool = False


class ToolTable(Struct, frozen=True):
    """A request's tools as the model is offered them, and the way back by a function's name."""

    tools: tuple[Tool, ...] = ()
    called: dict[str, Called] = {}

    def of(self, name: str) -> Called:
        """The tool that a call of a function means. An unknown name is a function's."""
        return self.called.get(name) or Called(name)


NO_TOOLS = ToolTable()


def flat_name(name: str, namespace: str | None) -> str:
    """A tool's one name, for a model that knows no namespaces."""
    return f"{namespace.rstrip('_')}{_JOINT}{name}" if namespace else name


def tool_table(given: list[dict[str, Any]] | None) -> ToolTable:
    """The tools of a request. Raises `InvalidRequest`."""
    tools: list[Tool] = []
    called: dict[str, Called] = {}
    for index, entry in enumerate(given or ()):
        place = f"tools[{index}]"
        defined = _definition(entry, place)
        if defined.type != "namespace":
            _add(defined, None, place, tools, called)
            continue
        if not defined.name:
            raise InvalidRequest("a namespace needs a name", param=f"{place}.name")
        for number, member in enumerate(defined.tools or ()):
            _add(member, defined.name, f"{place}.tools[{number}]", tools, called)
    return ToolTable(tuple(tools), called)


def _definition(entry: dict[str, Any], place: str) -> Definition:
    try:
        return msgspec.convert(entry, Definition)
    except msgspec.ValidationError as err:
        if entry.get("type") in ("function", "custom", "namespace"):
            raise InvalidRequest(f"Invalid value ({place}): {err}", param=place) from None
        return Definition(type=str(entry.get("type")))  # is left out anyway


def _add(
    defined: Definition,
    namespace: str | None,
    place: str,
    tools: list[Tool],
    called: dict[str, Called],
) -> None:
    if defined.type not in ("function", "custom"):
        tools.append(Tool(type=defined.type or "unknown"))
        return
    if not defined.name:
        raise InvalidRequest("a tool needs a name", param=f"{place}.name")
    name = flat_name(defined.name, namespace)
    if name in called:  # the model must be able to say which one it means
        numbered = (f"{name}_{number}" for number in count(len(called) + 1))
        name = next(one for one in numbered if one not in called)
    if len(called) >= MAX_TOOLS:
        raise InvalidRequest(f"at most {MAX_TOOLS} tools", param="tools")
    is_custom = defined.type == "custom"
    called[name] = Called(defined.name, namespace, is_custom)
    if is_custom:
        function = _custom(name, defined)
    else:
        function = ToolFunction(name, defined.description, defined.parameters, defined.strict)
    tools.append(Tool(type="function", function=function))


def _custom(name: str, defined: Definition) -> ToolFunction:
    """A custom tool as a function. A regular expression binds its text."""
    described, wanted = _described(defined), defined.format
    if wanted is None or wanted.syntax != "regex" or not wanted.definition:
        return ToolFunction(name, described, INPUT_SCHEMA)
    text = {"type": "string", "pattern": f"^(?:{wanted.definition})$"}
    bound = INPUT_SCHEMA | {"properties": {"input": text}}
    return ToolFunction(name, described, bound, strict=True)


def _described(custom: Definition) -> str | None:
    """A custom tool's description, with the grammar of its text."""
    texts = [custom.description] if custom.description else []
    if custom.format is not None and custom.format.definition:
        syntax = custom.format.syntax or "text"
        texts.append(f"The input has this {syntax} grammar:\n{custom.format.definition}")
    return "\n\n".join(texts) or None


def tool_choice(given: str | dict[str, Any] | None, table: ToolTable) -> ToolChoice | None:
    """The choice among the functions that a request's `tool_choice` means.

    A choice of a hosted tool asks for nothing that is served. Raises `InvalidRequest`.
    """
    if given is None or isinstance(given, str):
        return given
    kind = given.get("type")
    if kind in ("function", "custom"):
        chosen = _name(given, _names(table), "tool_choice")
        return ToolChoiceObject("function", ChosenFunction(chosen))
    if kind == "allowed_tools":
        return ToolChoiceObject("allowed_tools", allowed_tools=_allowed(given, _names(table)))
    if not isinstance(kind, str):
        raise InvalidRequest("tool_choice needs a type", param="tool_choice.type")
    return None


_Names = dict[tuple[str, str | None], str]
"""Functions' names by what a client calls the tool: its name with its namespace, or alone."""


def _names(table: ToolTable) -> _Names:
    found: _Names = {}
    for flat, tool in table.called.items():
        found.setdefault((tool.name, None), flat)
        found.setdefault((tool.name, tool.namespace), flat)
    return found


def _allowed(given: dict[str, Any], known: _Names) -> AllowedTools:
    tools = given.get("tools")
    mode = "auto" if given.get("mode") is None else given["mode"]
    if not isinstance(tools, list) or not all(isinstance(entry, dict) for entry in tools):
        raise InvalidRequest("allowed_tools needs a list of tools", param="tool_choice.tools")
    if mode not in ("auto", "required"):
        raise InvalidRequest("the mode is auto or required", param="tool_choice.mode")
    names = [
        _name(entry, known, f"tool_choice.tools[{index}]")
        for index, entry in enumerate(tools)
        if entry.get("type") in (None, "function", "custom")
    ]
    return AllowedTools(mode, [AllowedTool("function", ChosenFunction(name)) for name in names])


def _name(given: dict[str, Any], known: _Names, place: str) -> str:
    """The function's name for a tool that the client names."""
    name, namespace = given.get("name"), given.get("namespace")
    if not isinstance(name, str) or not name:
        raise InvalidRequest("a chosen tool needs a name", param=f"{place}.name")
    is_known = namespace is None or isinstance(namespace, str)
    return known.get((name, namespace), name) if is_known else name
