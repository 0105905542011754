"""OpenAI's streamed chunks. Everything but a part's own text is encoded once for each stream."""

from collections.abc import Sequence

import msgspec

from gpufc.errors import RequestError
from gpufc.protocol import TokenLogprobs
from supervisor.answers.parts import (
    Begun,
    Ended,
    Logprobs,
    Part,
    Reasoning,
    Text,
    ToolCallArguments,
    ToolCallBegun,
)
from supervisor.dispatch.stream import StreamEvent, Usage
from supervisor.http.edge.errors import openai_error
from supervisor.http.edge.streams import COMMENT, SERVER_SENT_EVENTS
from supervisor.http.generation.dialect import Exchange
from supervisor.http.openai.logprobs import (
    chat_logprobs,
    completion_logprobs,
    offsets_from,
    prompt_offsets,
)
from supervisor.http.openai.schemas import (
    ToolCallObject,
    UsageObject,
    answer_fields,
    finish_reason,
)

DONE = b"data: [DONE]\n\n"
NULL = b"null"

_encode = msgspec.json.Encoder().encode


class ChunkWriter:
    """The chunks of one stream. A subclass says how a choice looks in its dialect.

    Implements `streams.EventEncoder`: one chunk for each part. Log probabilities go with the chunk
    of the next part of their event; where none follows, they are a chunk of their own.
    """

    CONTENT_TYPE = SERVER_SENT_EVENTS
    END = DONE
    KIND: str
    BEFORE_TEXT: bytes
    AFTER_TEXT: bytes
    NOTHING: bytes
    OLDER = False

    def __init__(self, exchange: Exchange, *, include_usage: bool) -> None:
        shared = {"object": self.KIND, **answer_fields(exchange)}
        n_choices = exchange.request.n_sequences
        self.exchange = exchange
        self._include_usage = include_usage
        self._head = b"data: " + _encode(shared)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._heads = [self._head + b'{"index":%d,' % index for index in range(n_choices)]
        self._before = [head + self.BEFORE_TEXT for head in self._heads]
        self._after = self.AFTER_TEXT + b"null}" + self._tail
        self._has_logprobs = exchange.request.logprobs is not None

    def events(self, events: list[StreamEvent]) -> bytes:
        chunks: list[bytes] = []
        if self._has_logprobs:
            for event in events:
                chunks += self._with_logprobs(event)
            return b"".join(chunks)
        for event in events:
            index = event.index
            for part in event.parts:
                if type(part) is Text:
                    chunks += (self._before[index], _encode(part.text), self._after)
                elif (gain := self.gain(index, part)) is not None:
                    chunks.append(self.chunk(index, gain, part))
        return b"".join(chunks)

    def waiting(self) -> bytes:
        return COMMENT

    def closing(self, usage: Usage) -> bytes:
        """The chunk of usage, if it was asked for, and the end."""
        if not self._include_usage:
            return DONE
        return self._head + b'],"usage":' + _encode(UsageObject.of(usage)) + b"}\n\n" + DONE

    def error(self, error: RequestError) -> bytes:
        return b"data: " + _encode(openai_error(error, self.exchange.request.id)) + b"\n\n" + DONE

    def gain(self, index: int, part: Part) -> bytes | None:
        """What a choice gains by a part, as JSON members; None if the dialect has no word for it.

        A part is given once, in the order of its choice.
        """
        raise NotImplementedError

    def logprobs(self, index: int, entries: Sequence[TokenLogprobs]) -> bytes:
        """The log probabilities of a choice's next tokens as JSON. Called once for each token."""
        raise NotImplementedError

    def of_prompt(self, index: int, entries: Sequence[TokenLogprobs]) -> bytes:
        """The chunk of a prompt with log probabilities, if the dialect has one."""
        return b""

    def chunk(
        self, index: int, gained: bytes, part: Part | None = None, logprobs: bytes = NULL
    ) -> bytes:
        """One chunk: a choice's gain, its log probabilities, and its end if `part` is one."""
        finish = NULL
        if isinstance(part, Ended):
            finish = _encode(finish_reason(part, older=self.OLDER))
        end = b',"logprobs":' + logprobs + b',"finish_reason":' + finish + b"}"
        return self._heads[index] + gained + end + self._tail

    def _with_logprobs(self, event: StreamEvent) -> list[bytes]:
        index = event.index
        chunks: list[bytes] = []
        logprobs = NULL
        for part in event.parts:
            if isinstance(part, Logprobs):
                if part.prompt:
                    chunks.append(self.of_prompt(index, part.prompt))
                logprobs = self.logprobs(index, part.tokens) if part.tokens else NULL
            elif (gain := self.gain(index, part)) is not None:
                chunks.append(self.chunk(index, gain, part, logprobs))
                logprobs = NULL
        if logprobs is not NULL:
            chunks.append(self.chunk(index, self.NOTHING, None, logprobs))
        return chunks


class CompletionChunks(ChunkWriter):
    """A completion's parser is the one of plain text, so its choices gain text and an end.

    With `echo`, the texts of the prompts, each choice begins with its own prompt's.
    """

    KIND = "text_completion"
    BEFORE_TEXT = b'"text":'
    AFTER_TEXT = b',"logprobs":null,"finish_reason":'
    NOTHING = b'"text":""'

    def __init__(
        self, exchange: Exchange, *, include_usage: bool, echo: Sequence[str] = ()
    ) -> None:
        super().__init__(exchange, include_usage=include_usage)
        request = exchange.request
        self._echoes = [text for text in echo for _ in range(request.n)]
        self._offsets = [*map(len, self._echoes)] or [0] * request.n_sequences

    def gain(self, index: int, part: Part) -> bytes | None:
        match part:
            case Text(text):
                return b'"text":' + _encode(text)
            case Begun() if self._echoes and not self._has_logprobs:
                return b'"text":' + _encode(self._echoes[index])
            case Ended():
                return self.NOTHING
            case _:
                return None

    def logprobs(self, index: int, entries: Sequence[TokenLogprobs]) -> bytes:
        offsets = offsets_from(self._offsets[index], entries)
        self._offsets[index] = offsets[-1] + entries[-1].n_chars
        return self._written(entries, offsets)

    def of_prompt(self, index: int, entries: Sequence[TokenLogprobs]) -> bytes:
        text = self._echoes[index]
        written = self._written(entries, prompt_offsets(text, entries))
        return self.chunk(index, b'"text":' + _encode(text), None, written)

    def _written(self, entries: Sequence[TokenLogprobs], offsets: list[int]) -> bytes:
        wanted = self.exchange.request.logprobs
        return _encode(completion_logprobs(entries, offsets, wanted.n_top if wanted else 0))


class ChatChunks(ChunkWriter):
    """A choice begins with a chunk that names the role, and ends with one of an empty delta.
    Without `shows_reasoning`, the reasoning is left out."""

    KIND = "chat.completion.chunk"
    BEFORE_TEXT = b'"delta":{"content":'
    AFTER_TEXT = b'},"logprobs":null,"finish_reason":'
    NOTHING = b'"delta":{}'

    def __init__(
        self, exchange: Exchange, *, include_usage: bool, shows_reasoning: bool = True
    ) -> None:
        super().__init__(exchange, include_usage=include_usage)
        self._shows_reasoning = shows_reasoning

    def gain(self, index: int, part: Part) -> bytes | None:
        match part:
            case Begun():
                return b'"delta":{"role":"assistant","content":""}'
            case Text(text):
                return b'"delta":{"content":' + _encode(text) + b"}"
            case Reasoning(text):
                if not self._shows_reasoning:
                    return None
                return b'"delta":{"reasoning_content":' + _encode(text) + b"}"
            case ToolCallBegun(call):
                begun = ToolCallObject.begun(self.exchange, index, part)
                fields = b'"index":%d,' % call + _encode(begun)[1:]
                return b'"delta":{"tool_calls":[{' + fields + b"]}"
            case ToolCallArguments(call, text):
                fields = b'"index":%d,"function":{"arguments":' % call + _encode(text)
                return b'"delta":{"tool_calls":[{' + fields + b"}}]}"
            case Ended():
                return self.NOTHING
            case Logprobs():
                return None

    def logprobs(self, index: int, entries: Sequence[TokenLogprobs]) -> bytes:
        return _encode(chat_logprobs(entries))


class OlderChatChunks(ChatChunks):
    """Calls have the shape of OpenAI's older `functions`: one of them, without an id."""

    OLDER = True

    def gain(self, index: int, part: Part) -> bytes | None:
        match part:
            case ToolCallBegun(_, name):
                return b'"delta":{"function_call":{"name":%b,"arguments":""}}' % _encode(name)
            case ToolCallArguments(_, text):
                return b'"delta":{"function_call":{"arguments":%b}}' % _encode(text)
            case _:
                return super().gain(index, part)
