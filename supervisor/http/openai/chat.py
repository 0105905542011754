"""`POST /v1/chat/completions`."""

from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from gpufc.errors import InvalidRequest, RequestError
from supervisor.answers.whole import WholeAnswer
from supervisor.http.edge.body import read_json
from supervisor.http.edge.context import services
from supervisor.http.generation.chat import asked_of
from supervisor.http.generation.dialect import Exchange
from supervisor.http.generation.generate import generate
from supervisor.http.openai.chunks import ChatChunks, OlderChatChunks
from supervisor.http.openai.functions import ChatCompletionBody, name_here, with_tools
from supervisor.http.openai.logprobs import ChatLogprobs, chat_logprobs
from supervisor.http.openai.schemas import (
    AnswerObject,
    FinishReason,
    FunctionObject,
    ToolCallObject,
    UsageObject,
    answer_fields,
    finish_reason,
)


class AssistantMessage(Struct, frozen=True, kw_only=True):
    """An answer's message. `content` is null if the model has only called tools. A call has the
    older shape where the request has."""

    role: str = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallObject] | UnsetType = UNSET
    function_call: FunctionObject | UnsetType = UNSET


class ChatChoice(Struct, frozen=True, kw_only=True):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason


class ChatCompletion(AnswerObject, frozen=True, kw_only=True):
    object: str = "chat.completion"
    choices: list[ChatChoice]
    usage: UsageObject


async def create_chat_completion(request: web.Request) -> web.StreamResponse:
    """Answer a conversation."""
    body = await read_json(request, ChatCompletionBody)
    is_older = bool(body.functions)
    fields = with_tools(body)
    try:
        asked = asked_of(services(request), fields)
        if asked.logprobs is not None and body.excluded_by is not None:
            raise InvalidRequest(  # the entries of the reasoning would tell it
                "log probabilities are of all tokens, those of the reasoning included",
                param=body.excluded_by,
            )
        dialect = ChatDialect(body.includes_usage, is_older, body.excluded_by is None)
        return await generate(request, fields, asked, dialect)
    except RequestError as err:
        err.param = name_here(err.param) if is_older else err.param
        raise


class ChatDialect(Struct, frozen=True):
    """OpenAI's chat completions. Implements `Dialect`. `older`: a call has the older shape."""

    include_usage: bool
    older: bool = False
    shows_reasoning: bool = True
    id_prefix: str = "chatcmpl-"

    def whole(self, exchange: Exchange, choices: list[WholeAnswer]) -> ChatCompletion:
        return ChatCompletion(
            **answer_fields(exchange),
            choices=[
                ChatChoice(
                    index=index,
                    message=self._answered(exchange, index, choice),
                    logprobs=chat_logprobs(choice.logprobs) if exchange.request.logprobs else None,
                    finish_reason=finish_reason(choice.ended, older=self.older),
                )
                for index, choice in enumerate(choices)
            ],
            usage=UsageObject.of(exchange.usage()),
        )

    def encoder(self, exchange: Exchange) -> ChatChunks:
        chunks = OlderChatChunks if self.older else ChatChunks
        shows = self.shows_reasoning
        return chunks(exchange, include_usage=self.include_usage, shows_reasoning=shows)

    def _answered(self, exchange: Exchange, index: int, choice: WholeAnswer) -> AssistantMessage:
        calls = [
            ToolCallObject(
                call.id or exchange.call_id(index, number),
                FunctionObject(call.name, call.arguments),
            )
            for number, call in enumerate(choice.calls)
        ]
        return AssistantMessage(
            content=choice.text if choice.text or not calls else None,
            reasoning_content=(choice.reasoning if self.shows_reasoning else "") or UNSET,
            tool_calls=UNSET if self.older or not calls else calls,
            function_call=calls[0].function if self.older and calls else UNSET,
        )
