"""The body of a chat request, and OpenAI's older fields for tools, `functions` and `function_call`,
as the newer ones. Pure."""

from typing import ClassVar

from msgspec import structs

from gpufc.errors import InvalidRequest
from supervisor.http.generation.chat import ChatFields
from supervisor.http.generation.tools import (
    ChosenFunction,
    Tool,
    ToolChoice,
    ToolChoiceObject,
    ToolFunction,
)


class ChatCompletionBody(ChatFields, kw_only=True):
    """A chat's fields, and the older ones. `function_call` is a word, or a function by its name."""

    SERVED: ClassVar[frozenset[str]] = ChatFields.SERVED | {
        *("function_call", "functions", "include_reasoning")
    }

    functions: list[ToolFunction] | None = None
    function_call: str | ChosenFunction | None = None
    include_reasoning: bool | None = None

    @property
    def excluded_by(self) -> str | None:
        """The field that leaves the reasoning out of an answer. OpenRouter has two names for it."""
        if self.include_reasoning is False:
            return "include_reasoning"
        excluded = self.reasoning is not None and self.reasoning.exclude
        return "reasoning.exclude" if excluded else None


def with_tools(body: ChatCompletionBody) -> ChatCompletionBody:
    """The body with its functions as tools; as it is without any.

    An answer in the older shape has room for one call. Raises `InvalidRequest`.
    """
    if not body.functions:
        if body.function_call not in (None, "none", "auto"):
            raise InvalidRequest("function_call needs functions", param="function_call")
        return body
    if body.tools or body.tool_choice is not None:
        raise InvalidRequest("functions and tools are two ways to say one thing", param="functions")
    for index, function in enumerate(body.functions):
        if not function.name:
            raise InvalidRequest("a function needs a name", param=f"functions[{index}].name")
    return structs.replace(
        body,
        tools=[Tool("function", function) for function in body.functions],
        tool_choice=_choice(body),
        parallel_tool_calls=False,
    )


def name_here(param: str | None) -> str | None:
    """The older field that a chat's field comes from, for errors."""
    if param is None:
        return None
    first = param.partition("[")[0].partition(".")[0]
    return {"tools": "functions", "tool_choice": "function_call"}.get(first, param)


def _choice(body: ChatCompletionBody) -> ToolChoice | None:
    match body.function_call:
        case None | "auto" | "none" as word:
            return word
        case ChosenFunction(name) if any(name == one.name for one in body.functions or ()):
            return ToolChoiceObject("function", function=ChosenFunction(name))
        case ChosenFunction(name):
            problem = f"function_call names {name[:64]!r}, which is not among functions"
        case other:
            problem = f"function_call {other[:50]!r} is not supported"
    raise InvalidRequest(problem, param="function_call")
