"""The tools that a request offers to the model, and its choice among them. Pure."""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec
from msgspec import Struct, structs

from gpufc.answer_format import MAX_CALLS, Function, Span
from gpufc.errors import InvalidGrammar, InvalidRequest
from gpufc.nesting import is_deeper
from gpufc.null_keywords import without_null_keywords
from supervisor.http.edge.values import converted

SKIPPED_HEADER = "x-gpufc-skipped-tools"
"""Names the types of tools that were left out of an answer's request."""

MAX_TOOLS_BYTES = 2 * 1024 * 1024
"""Of all definitions together: more than any context takes."""
MAX_SKIPPED_NAMED = 16
MAX_GUIDED_BYTES = 512 * 1024
"""Of the definitions of functions whose calls are guided."""

_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}
_NO_ARGUMENTS: dict[str, Any] = {**_NO_PARAMETERS, "additionalProperties": False}
_WORD = re.compile(r"[\w.-]+")
"""Names that every family of models can write."""
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

    @property
    def guided(self) -> Function:
        """The function in a guided answer. One without parameters has no arguments."""
        schema = self.parameters or _NO_ARGUMENTS
        return Function(self.name, Span(), schema, self.strict is True)


class _OwnLevel(ToolFunction, frozen=True):
    """A function on its tool's own level. `input_schema` is Anthropic's name of `parameters`."""

    input_schema: dict[str, Any] | None = None


class Tool(Struct, frozen=True):
    """An entry of `tools`. Only functions can be served. Some clients send a function's members at
    this level, as the Responses API has them. Tools of other types, which are left out, may have
    members of these names with other values: `defined` checks them."""

    type: str | None = None
    function: ToolFunction | None = None
    name: Any = None
    description: Any = None
    parameters: Any = None
    input_schema: Any = None
    strict: Any = None

    @property
    def defined(self) -> ToolFunction | None:
        """The function, whichever level it stands on. Raises `msgspec.ValidationError`."""
        if self.function is not None or self.name is None:
            return self.function
        members = {name: getattr(self, name) for name in _OwnLevel.__struct_fields__}
        own = converted(members, _OwnLevel)
        schema = own.input_schema if own.parameters is None else own.parameters
        return ToolFunction(own.name, own.description, schema, own.strict)


class ChosenFunction(Struct, frozen=True):
    name: str


class AllowedTool(Struct, frozen=True):
    """A reference to a tool of `tools`. The Responses API has the name without `function`."""

    type: str | None = None
    function: ChosenFunction | None = None
    name: str | None = None

    @property
    def chosen(self) -> str | None:
        return self.function.name if self.function else self.name


class AllowedTools(Struct, frozen=True):
    """A part of `tools`. Without a mode it is `auto`."""

    mode: str | None = None
    tools: list[AllowedTool] | None = None


class ToolChoiceObject(Struct, frozen=True):
    """A `tool_choice` that is no word: one function by name, or a part of `tools`.

    The Responses API has `name`, `mode` and `tools` at this level. Without a type it is a function.
    """

    type: str | None = None
    function: ChosenFunction | None = None
    allowed_tools: AllowedTools | None = None
    name: str | None = None
    mode: str | None = None
    tools: list[AllowedTool] | None = None


ToolChoice = str | ToolChoiceObject


class OfferedTools(Struct, frozen=True, dict=True):
    """The functions that the model is told of, and the types of tools that were left out.

    With `must_call` the answer is a call, of the function `named` if there is one.
    """

    functions: tuple[ToolFunction, ...] = ()
    skipped: tuple[str, ...] = ()
    must_call: bool = False
    named: str = ""

    @property
    def guided(self) -> tuple[Function, ...]:
        """The functions that a guided answer may call; none where no grammar can be made of them,
        which `offered` refuses if the answer must be guided."""
        if self.unguidable is not None:
            return ()
        names = {self.named} if self.named else {function.name for function in self.functions}
        return tuple(function.guided for function in self.functions if function.name in names)

    @property
    def unguidable(self) -> InvalidRequest | None:
        """Why no grammar can be made of these functions."""
        for function in self.functions:
            if _WORD.fullmatch(function.name) is None:
                return InvalidRequest(
                    f"a guided call cannot have the name {function.name[:64]!r}", param="tools"
                )
        if len(self.json) > MAX_GUIDED_BYTES:
            return InvalidGrammar(
                f"tools of guided calls have at most {MAX_GUIDED_BYTES} bytes", param="tools"
            )
        return None

    @property
    def is_strict(self) -> bool:
        """Whether the arguments of a function are promised to match its schema."""
        return any(function.strict for function in self.functions)

    def most_calls(self, *, parallel: bool) -> int | None:
        """The largest number of calls in a guided answer; None is any number."""
        if self.named or not parallel:
            return 1
        return MAX_CALLS if self.must_call else None

    @cached_property
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
            skipped[_NOT_A_WORD.sub("_", kind[:50])] = None
            continue
        try:
            function = tool.defined
        except msgspec.ValidationError as err:
            place = f"tools[{index}]"
            raise InvalidRequest(f"Invalid value ({place}): {err}", param=place) from None
        if function is None:
            raise InvalidRequest("a function tool needs a function", param=f"tools[{index}]")
        if not function.name:
            raise InvalidRequest("a function needs a name", param=f"tools[{index}].function.name")
        functions.append(function)
    found = structs.replace(_chosen(functions, choice), skipped=tuple(skipped)[:MAX_SKIPPED_NAMED])
    if len(found.json) > MAX_TOOLS_BYTES:
        raise InvalidRequest(f"tools have at most {MAX_TOOLS_BYTES} bytes", param="tools")
    if any(is_deeper(function.parameters) for function in found.functions):
        raise InvalidRequest("the parameters of a function nest too deeply", param="tools")
    found = _without_nulls(found)
    if (found.must_call or found.is_strict) and (reason := found.unguidable) is not None:
        raise reason
    return found


def _chosen(functions: Sequence[ToolFunction], choice: ToolChoice | None) -> OfferedTools:
    """What a choice makes of the functions. `any` and `tool` are Anthropic's words."""
    every = tuple(functions)
    match choice:
        case None | "auto" | ToolChoiceObject(type="auto"):
            return OfferedTools(every)
        case "none" | ToolChoiceObject(type="none"):
            return OfferedTools()
        case "required" | "any" | ToolChoiceObject(type="required" | "any"):
            return _required(every)
        case ToolChoiceObject(type=None | "function" | "tool"):
            return _named(every, choice)
        case ToolChoiceObject(type="allowed_tools"):
            given = choice.allowed_tools or AllowedTools(choice.mode, choice.tools)
            names = {entry.chosen for entry in given.tools or ()}
            allowed = tuple(function for function in every if function.name in names)
            if given.mode not in (None, "auto", "required"):
                raise _no_choice(f"allowed_tools of mode {given.mode[:50]!r}")
            return _required(allowed) if given.mode == "required" else OfferedTools(allowed)
        case ToolChoiceObject():
            raise _no_choice(f"of type {(choice.type or '')[:50]!r}")
        case _:
            raise _no_choice(repr(choice[:50]))


def _required(functions: tuple[ToolFunction, ...]) -> OfferedTools:
    if not functions:
        raise InvalidRequest("a call is required, and no function is offered", param="tool_choice")
    return OfferedTools(functions, must_call=True)


def _named(functions: tuple[ToolFunction, ...], choice: ToolChoiceObject) -> OfferedTools:
    name = choice.function.name if choice.function else choice.name
    if not name:
        raise InvalidRequest("tool_choice needs the name of a function", param="tool_choice")
    if all(function.name != name for function in functions):
        raise InvalidRequest(
            f"tool_choice names {name[:64]!r}, which is not among tools", param="tool_choice"
        )
    return OfferedTools(functions, must_call=True, named=name)


def _without_nulls(offered: OfferedTools) -> OfferedTools:
    """The functions with schemas that templates can read: null keywords are absent."""
    if ":null" not in offered.json:
        return offered
    functions = tuple(
        structs.replace(function, parameters=without_null_keywords(function.parameters))
        for function in offered.functions
    )
    return structs.replace(offered, functions=functions)


def _no_choice(asked: str) -> InvalidRequest:
    return InvalidRequest(f"tool_choice {asked} is not supported", param="tool_choice")


def _defined(function: ToolFunction) -> dict[str, Any]:
    """A definition in the form of Hugging Face's templates."""
    described = {"description": function.description} if function.description else {}
    return {
        "type": "function",
        "function": {"name": function.name, **described, "parameters": function.schema},
    }
