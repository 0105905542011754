"""`POST /v1/chat/completions`."""

from typing import Annotated, Any, Literal

from aiohttp import web
from msgspec import Meta, Struct

from gpufc.errors import InvalidRequest
from gpufc.protocol import ChatMessage, ChatPrompt, FinishReason
from supervisor.dispatch.stream import ResponseStream
from supervisor.http import validation
from supervisor.http.body import read_json
from supervisor.http.chunks import ChatChunks
from supervisor.http.generation import Dialect, generate
from supervisor.http.schemas import Answer, Count, GenerationFields, UsageObject

MAX_MESSAGES = 4096
"""Of one conversation. A body of 8 MiB could hold a quarter of a million empty ones."""

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


class ContentPart(Struct, frozen=True):
    """A part of a message's content. Of the kinds, only text is served yet."""

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
    """The request."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Count | None = None


class AssistantMessage(Struct, frozen=True):
    content: str
    role: str = "assistant"
    refusal: None = None


class ChatChoice(Struct, frozen=True, kw_only=True):
    index: int
    message: AssistantMessage
    logprobs: None = None
    finish_reason: FinishReason | None


class ChatCompletion(Answer, frozen=True, kw_only=True):
    """The whole answer."""

    object: str = "chat.completion"
    choices: list[ChatChoice]
    usage: UsageObject


async def create_chat_completion(request: web.Request) -> web.StreamResponse:
    """Answer a conversation."""
    body = await read_json(request, ChatBody)
    limit = validation.max_tokens(body, body.max_completion_tokens, None)
    messages = tuple(_message(message, index) for index, message in enumerate(body.messages))
    return await generate(request, body, (ChatPrompt(messages),), limit, _DIALECT)


def _message(message: Message, index: int) -> ChatMessage:
    place = f"messages[{index}]"
    for name in ("tool_calls", "function_call"):
        if getattr(message, name):
            raise InvalidRequest(f"{name} is not supported yet", param=f"{place}.{name}")
    # OpenAI's newer name for the role; templates know the older one
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


def _whole(answer: Answer, stream: ResponseStream, texts: list[str]) -> ChatCompletion:
    return ChatCompletion(
        id=answer.id,
        created=answer.created,
        model=answer.model,
        system_fingerprint=answer.system_fingerprint,
        choices=[
            ChatChoice(index=log.index, message=AssistantMessage(text), finish_reason=log.finish)
            for log, text in zip(stream.logs, texts, strict=True)
        ],
        usage=UsageObject.of(stream.usage),
    )


_DIALECT = Dialect("chatcmpl-", ChatChunks, _whole)
