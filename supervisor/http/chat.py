"""`POST /v1/chat/completions`."""

from functools import partial
from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from gpufc.chat import ChatPrompt
from gpufc.errors import InvalidRequest
from gpufc.nesting import is_deeper
from supervisor.answers.whole import WholeAnswer
from supervisor.http import validation
from supervisor.http.body import read_json
from supervisor.http.chunks import ChatChunks
from supervisor.http.context import services
from supervisor.http.generation import Asked, Dialect, generate
from supervisor.http.history import Messages, history
from supervisor.http.reading import reading_of
from supervisor.http.schemas import (
    Answer,
    FinishReason,
    FunctionObject,
    GenerationFields,
    Limit,
    ToolCallObject,
    UsageObject,
    call_id,
    finish_reason,
)
from supervisor.http.tools import OfferedTools, Tool, ToolChoice, offered

MAX_VARIABLES_BYTES = 64 * 1024
RESERVED_VARIABLES = ("messages", "tools", "documents", "add_generation_prompt")
"""The variables of a template that have fields of their own."""


class ChatBody(GenerationFields, kw_only=True):
    messages: Messages
    max_completion_tokens: Limit | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


class AssistantMessage(Struct, frozen=True, kw_only=True):
    """An answer's message. `content` is null if the model has only called tools."""

    role: str = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallObject] | UnsetType = UNSET


class ChatChoice(Struct, frozen=True, kw_only=True):
    index: int
    message: AssistantMessage
    logprobs: None = None
    finish_reason: FinishReason


class ChatCompletion(Answer, frozen=True, kw_only=True):
    object: str = "chat.completion"
    choices: list[ChatChoice]
    usage: UsageObject


async def create_chat_completion(request: web.Request) -> web.StreamResponse:
    """Answer a conversation."""
    body = await read_json(request, ChatBody)
    limit = validation.max_tokens(body, body.max_completion_tokens, None)
    tools = offered(body.tools, body.tool_choice)
    front = services(request)
    model = front.fleet.resolve(body.model)
    reading = reading_of(
        partial(front.dispatcher.facts, model),
        tools,
        parallel=body.parallel_tool_calls is not False,
    )
    asked = Asked((_prompt(body, tools),), limit, reading, tools.headers)
    return await generate(request, body, asked, _DIALECT)


def _prompt(body: ChatBody, tools: OfferedTools) -> ChatPrompt:
    messages = history(body.messages)
    last = messages[-1]
    is_answer = last.role == "assistant" and not last.tool_calls
    continues = body.continue_final_message
    if continues and not is_answer:
        raise InvalidRequest(
            "continue_final_message needs a last message of the assistant",
            param="continue_final_message",
        )
    if continues is None:
        # a turn that is not asked for would make the model answer itself
        continues = is_answer and not body.add_generation_prompt
    if continues and body.add_generation_prompt:
        raise InvalidRequest(
            "a message cannot be continued in a new turn", param="add_generation_prompt"
        )
    opens = not continues and body.add_generation_prompt is not False
    return ChatPrompt(messages, opens, continues, tools.json, _variables(body))


def _variables(body: ChatBody) -> str:
    """The template's further variables as JSON, empty without any. A template that does not know a
    variable ignores it."""
    found: dict[str, Any] = {
        name: value
        for name, value in (
            ("reasoning_effort", body.reasoning_effort),
            ("verbosity", body.verbosity),
        )
        if value
    }
    if body.reasoning_effort == "none":
        found["enable_thinking"] = False
    given = body.chat_template_kwargs or {}
    for name in RESERVED_VARIABLES:
        if name in given:
            raise InvalidRequest(
                f"{name} is not one of the template's free variables",
                param=f"chat_template_kwargs.{name}",
            )
    found |= {name: value for name, value in given.items() if value is not None}
    if is_deeper(found):
        raise InvalidRequest("it nests too deeply", param="chat_template_kwargs")
    text = msgspec.json.encode(found).decode() if found else ""
    if len(text) > MAX_VARIABLES_BYTES:
        raise InvalidRequest(
            f"it has at most {MAX_VARIABLES_BYTES} bytes", param="chat_template_kwargs"
        )
    return text


def _whole(answer: Answer, choices: list[WholeAnswer], usage: UsageObject) -> ChatCompletion:
    return ChatCompletion(
        id=answer.id,
        created=answer.created,
        model=answer.model,
        system_fingerprint=answer.system_fingerprint,
        choices=[
            ChatChoice(
                index=index,
                message=_answered(answer, index, choice),
                finish_reason=finish_reason(choice.ended),
            )
            for index, choice in enumerate(choices)
        ],
        usage=usage,
    )


def _answered(answer: Answer, index: int, choice: WholeAnswer) -> AssistantMessage:
    calls = [
        ToolCallObject(
            call.id or call_id(answer, index, number), FunctionObject(call.name, call.arguments)
        )
        for number, call in enumerate(choice.calls)
    ]
    return AssistantMessage(
        content=choice.text if choice.text or not calls else None,
        reasoning_content=choice.reasoning or UNSET,
        tool_calls=calls or UNSET,
    )


_DIALECT = Dialect("chatcmpl-", ChatChunks, _whole)
