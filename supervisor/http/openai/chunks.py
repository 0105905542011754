"""OpenAI's streamed chunks. Everything but a part's own text is encoded once for each stream."""

import msgspec

from gpufc.errors import RequestError
from supervisor.answers.parts import (
    Begun,
    Ended,
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
from supervisor.http.openai.schemas import (
    ToolCallObject,
    UsageObject,
    answer_fields,
    finish_reason,
)

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


class ChunkWriter:
    """The chunks of one stream. A subclass says how a choice looks in its dialect.

    Implements `streams.EventEncoder`: one chunk for each part.
    """

    CONTENT_TYPE = SERVER_SENT_EVENTS
    END = DONE
    KIND: str
    BEFORE_TEXT: bytes
    AFTER_TEXT: bytes

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

    def events(self, events: list[StreamEvent]) -> bytes:
        chunks: list[bytes] = []
        for event in events:
            index = event.index
            for part in event.parts:
                if type(part) is Text:
                    chunks += (self._before[index], _encode(part.text), self._after)
                else:
                    chunks.append(self.rare(index, part))
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

    def rare(self, index: int, part: Part) -> bytes:
        """The chunk for any part but text; empty if the dialect has none."""
        raise NotImplementedError

    def chunk(self, index: int, gained: bytes, ended: Ended | None = None) -> bytes:
        """One chunk: a choice's gain, as JSON members, and its end."""
        finish = b"null" if ended is None else _encode(finish_reason(ended))
        end = b',"logprobs":null,"finish_reason":' + finish + b"}"
        return self._heads[index] + gained + end + self._tail


class CompletionChunks(ChunkWriter):
    """A completion's parser is the one of plain text, so its choices gain text and an end."""

    KIND = "text_completion"
    BEFORE_TEXT = b'"text":'
    AFTER_TEXT = b',"logprobs":null,"finish_reason":'

    def rare(self, index: int, part: Part) -> bytes:
        return self.chunk(index, b'"text":""', part) if isinstance(part, Ended) else b""


class ChatChunks(ChunkWriter):
    """A choice begins with a chunk that names the role, and ends with one of an empty delta."""

    KIND = "chat.completion.chunk"
    BEFORE_TEXT = b'"delta":{"content":'
    AFTER_TEXT = b'},"logprobs":null,"finish_reason":'

    def rare(self, index: int, part: Part) -> bytes:
        match part:
            case Begun():
                return self.chunk(index, b'"delta":{"role":"assistant","content":""}')
            case Text(text):
                return self.chunk(index, b'"delta":{"content":' + _encode(text) + b"}")
            case Reasoning(text):
                delta = b'"delta":{"reasoning_content":' + _encode(text) + b"}"
                return self.chunk(index, delta)
            case ToolCallBegun(call):
                begun = ToolCallObject.begun(self.exchange, index, part)
                fields = b'"index":%d,' % call + _encode(begun)[1:]
                return self.chunk(index, b'"delta":{"tool_calls":[{' + fields + b"]}")
            case ToolCallArguments(call, text):
                fields = b'"index":%d,"function":{"arguments":' % call + _encode(text)
                return self.chunk(index, b'"delta":{"tool_calls":[{' + fields + b"}}]}")
            case Ended():
                return self.chunk(index, b'"delta":{}', part)
