"""The fields of a Responses request, and the items of its input.

An item's type decides which of its keys count and which types they have. So the keys whose type
differs between items are checked where they are read (`items.py`).
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from gpufc.errors import InvalidRequest
from supervisor.http.generation.fields import GenerationFields, Limit
from supervisor.http.generation.history import MAX_MESSAGES
from supervisor.http.generation.thinking import ReasoningChoice

LOGPROBS = "message.output_text.logprobs"
"""The entry of `include` that asks for log probabilities of the text's tokens."""

MAX_ENTRIES = 4096
"""Entries of `tools` that are decoded at all."""


class Item(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item of a conversation, as a client sends it or as it is remembered.

    Without a type it is a message if it has a role, and else a reference to an item.
    """

    type: str | None = None
    id: str | None = None
    role: str | None = None
    status: Any = None
    content: Any = None
    summary: Any = None
    encrypted_content: str | None = None
    call_id: str | None = None
    namespace: str | None = None
    name: str | None = None
    arguments: Any = None
    input: Any = None
    action: Any = None
    operation: Any = None
    output: Any = None

    @property
    def kind(self) -> str | None:
        """Its type, also where the client leaves it out. None for an item without any."""
        if self.type is not None:
            return self.type
        if self.role is not None:
            return "message"
        return None if self.id is None else "item_reference"


Items = Annotated[list[Item], Meta(max_length=MAX_MESSAGES)]


class TextFormat(Struct, frozen=True, omit_defaults=True):
    """The format of the answer's text. `strict` changes nothing: every schema is enforced."""

    type: str
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | bool | None = None
    strict: bool | None = None


class TextFields(Struct, frozen=True):
    format: TextFormat | None = None
    verbosity: str | None = None


class ReasoningFields(Struct, frozen=True):
    """The object as an answer repeats it."""

    effort: str | None = None
    summary: str | None = None


class AskedReasoning(ReasoningChoice, frozen=True):
    """The object as a request has it: OpenAI's fields, and OpenRouter's."""

    summary: str | None = None


class ResponsesFields(GenerationFields, kw_only=True):
    """OpenAI's fields, and those that all generating routes share."""

    input: str | Items | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    include: list[str] | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=MAX_ENTRIES)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    text: TextFields | None = None
    reasoning: AskedReasoning | None = None
    max_output_tokens: Limit | None = None
    truncation: str | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    background: bool | None = None
    conversation: Any = None
    prompt: Any = None
    chat_template_kwargs: dict[str, Any] | None = None
    enable_thinking: bool | None = None


def wants_logprobs(body: ResponsesFields) -> bool:
    return bool(body.top_logprobs) or LOGPROBS in (body.include or ())


def refuse_unserved(body: ResponsesFields) -> None:
    """Raises `InvalidRequest` for a field that asks for something which is not served."""
    if body.background:
        raise InvalidRequest(
            "background responses are not supported; a stream with an Idempotency-Key outlives its "
            "client",
            param="background",
        )
    if body.conversation is not None:
        raise InvalidRequest(
            "conversation is not supported; use previous_response_id, or send the items",
            param="conversation",
        )
    if body.prompt is not None:
        raise InvalidRequest(
            "prompt templates are not supported; use instructions and input", param="prompt"
        )
    for name in ("logprobs", "n_probs"):
        if getattr(body, name):
            raise InvalidRequest(f"include {LOGPROBS}, or set top_logprobs", param=name)
    if body.reasoning is not None and body.reasoning.exclude:
        raise InvalidRequest("an answer's reasoning is not left out", param="reasoning.exclude")
    if (body.n or 1) > 1:
        raise InvalidRequest("a response has one answer; n is at most 1", param="n")
    if body.truncation not in (None, "auto", "disabled"):
        raise InvalidRequest("truncation is auto or disabled", param="truncation")
