"""`POST /v1/chat/completions`."""

from typing import Annotated, Any, Literal

from aiohttp import web
from msgspec import UNSET, Meta, Struct, UnsetType

from gpufc.errors import InvalidRequest
from gpufc.protocol import ChatMessage, ChatPrompt
from supervisor.answers.parser import PlainText
from supervisor.answers.whole import WholeAnswer
from supervisor.http import validation
from supervisor.http.body import read_json
from supervisor.http.chunks import ChatChunks
from supervisor.http.generation import Asked, Dialect, generate
from supervisor.http.schemas import (
    Answer,
    Count,
    FinishReason,
    FunctionObject,
    GenerationFields,
    ToolCallObject,
    UsageObject,
    call_id,
    finish_reason,
)

MAX_MESSAGES = 4096
"""Of one conversation: a body within its limit could hold far more empty ones."""

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


class ContentPart(Struct, frozen=True):
    """A part of a message's content. Only text is served yet."""

    type: str
    text: str | None = None


class Message(Struct, frozen=True):
    """One turn of the conversation, as a client sends it."""

    role: Role
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: Any = None
    function_call: Any = None


class ChatBody(GenerationFields, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Count | None = None


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
    messages = tuple(_message(message, index) for index, message in enumerate(body.messages))
    asked = Asked((ChatPrompt(messages),), limit, PlainText)
    return await generate(request, body, asked, _DIALECT)


def _message(message: Message, index: int) -> ChatMessage:
    place = f"messages[{index}]"
    for name in ("tool_calls", "function_call"):
        if getattr(message, name):
            raise InvalidRequest(f"{name} is not supported yet", param=f"{place}.{name}")
    # `developer` is OpenAI's newer name for the role; templates know the older one
    role = "system" if message.role == "developer" else message.role
    return ChatMessage(role, _text(message.content, f"{place}.content"), message.name)


def _text(content: str | list[ContentPart] | None, place: str) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        raise InvalidRequest("a message needs content", param=place)
    texts = []
    for index, part in enumerate(content):
        if part.type != "text":
            kind = part.type[:50]
            raise InvalidRequest(
                f"content of type {kind!r} is not supported", param=f"{place}[{index}].type"
            )
        if part.text is None:
            raise InvalidRequest("a text part needs text", param=f"{place}[{index}].text")
        texts.append(part.text)
    return "".join(texts)


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
