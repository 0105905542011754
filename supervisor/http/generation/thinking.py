"""The fields that switch a model's reasoning, as variables of its chat template. Pure.

Templates name the switch `enable_thinking` or `thinking`, and the effort `reasoning_effort`. One
that does not know a variable ignores it. Of the fields of several servers, those that OpenAI has
come first.
"""

from typing import Any, ClassVar

from msgspec import Struct

from gpufc.errors import InvalidRequest
from supervisor.http.generation.fields import GenerationFields

THINKS = {"adaptive": True, "auto": True, "between_tools": True, "disabled": False, "enabled": True}
"""Types of a `thinking` object. Without the field, the model's template decides."""


class Thinking(Struct, frozen=True):
    """The object of DeepSeek, GLM, Kimi and Anthropic. Its `budget_tokens` changes nothing:
    Anthropic's clients have to send one, whether or not they want a bound."""

    type: str | None = None


class ReasoningChoice(Struct, frozen=True):
    """OpenRouter's object. A dialect reads `exclude`: it leaves the reasoning out of the answer."""

    effort: str | None = None
    enabled: bool | None = None
    exclude: bool | None = None
    max_tokens: Any = None


class ThinkingFields(GenerationFields, kw_only=True):
    """OpenAI's field, and those of other servers."""

    SERVED: ClassVar[frozenset[str]] = frozenset({"enable_thinking"})

    reasoning_effort: str | None = None
    reasoning: ReasoningChoice | None = None
    thinking: Thinking | bool | None = None
    enable_thinking: bool | None = None


def switched(wanted: bool) -> dict[str, Any]:
    """The variables that switch the reasoning on or off, under the names in use."""
    return {"enable_thinking": wanted, "thinking": wanted}


def thinking_variables(body: ThinkingFields) -> dict[str, Any]:
    """The variables that the fields ask for. Raises `InvalidRequest`."""
    choice = body.reasoning or ReasoningChoice()
    if choice.max_tokens is not None:
        raise InvalidRequest(
            "a bound for reasoning is not supported yet", param="reasoning.max_tokens"
        )
    effort = body.reasoning_effort or choice.effort
    wanted = body.enable_thinking
    if wanted is None:
        wanted = _switch(body.thinking)
    if wanted is None:
        wanted = False if effort == "none" else choice.enabled
    found: dict[str, Any] = {} if wanted is None else switched(wanted)
    return found | ({"reasoning_effort": effort} if effort else {})


def _switch(thinking: Thinking | bool | None) -> bool | None:
    if thinking is None or isinstance(thinking, bool):
        return thinking
    if thinking.type is None:
        return None
    if thinking.type not in THINKS:
        kind = thinking.type[:50]
        raise InvalidRequest(f"{kind!r} is none of {', '.join(THINKS)}", param="thinking.type")
    return THINKS[thinking.type]
