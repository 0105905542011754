"""Ollama's streams: one JSON object a line, without blank lines, the last one with `done: true`."""

from typing import Any

import msgspec
from msgspec import Struct

from gpufc.errors import RequestError
from gpufc.protocol import FinishReason, TokenLogprobs
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
from supervisor.http.edge.errors import ollama_error
from supervisor.http.generation.dialect import Exchange
from supervisor.http.ollama.answers import Last, arguments_of, as_text, written
from supervisor.http.ollama.logprobs import logprobs_of

NEWLINE_DELIMITED = "application/x-ndjson"

_encode = msgspec.json.Encoder().encode


class OpenCall(Struct):
    """A call whose arguments are not complete."""

    begun: ToolCallBegun
    arguments: list[str] = []


class LineWriter:
    """The lines of one stream. A subclass says how an answer looks on its route.

    Implements `streams.EventEncoder`. A call is one line, once its arguments are complete. A call
    without proper arguments is text before the last line. Log probabilities go with the next line
    of their event, or are a line without content.
    """

    CONTENT_TYPE = NEWLINE_DELIMITED
    END = b""
    BEFORE_TEXT: bytes
    AFTER_TEXT: bytes
    BEFORE_THINKING: bytes
    AFTER_THINKING: bytes

    def __init__(self, exchange: Exchange) -> None:
        shared = {"model": exchange.model, "created_at": written(exchange.created)}
        self.exchange = exchange
        self._head = _encode(shared)[:-1] + b","
        self._tail = b',"done":false}\n'
        self._before = self._head + self.BEFORE_TEXT
        self._after = self.AFTER_TEXT + self._tail
        self._call: OpenCall | None = None
        self._no_calls: list[str] = []
        self._logprobs: list[TokenLogprobs] = []
        self._ended = Ended(FinishReason.STOP)

    def events(self, events: list[StreamEvent]) -> bytes:
        lines: list[bytes] = []
        for event in events:
            for part in event.parts:
                if type(part) is Text and self._call is None and not self._logprobs:
                    lines += (self._before, _encode(part.text), self._after)
                else:
                    lines += map(self._line, self._gained(part))
            if self._logprobs:
                lines.append(self._line(self._text("")))
        return b"".join(lines)

    def waiting(self) -> bytes:
        """A line without content: blank lines and comments break clients."""
        return self._before + b'""' + self._after

    def closing(self, usage: Usage) -> bytes:
        return _encode(self.last(self._ended, usage)) + b"\n"

    def error(self, error: RequestError) -> bytes:
        return _encode(ollama_error(error, self.exchange.request.id)) + b"\n"

    def last(self, ended: Ended, usage: Usage) -> Last:
        """The last line, with the end and the figures."""
        raise NotImplementedError

    def call(self, number: int, own_id: str, name: str, arguments: dict[str, Any]) -> bytes:
        """The JSON members of a line with one whole call."""
        raise NotImplementedError

    def _gained(self, part: Part) -> list[bytes]:
        """The JSON members of each line that a part completes."""
        if isinstance(part, ToolCallArguments):
            if self._call is not None:
                self._call.arguments.append(part.text)
            return []
        if isinstance(part, Logprobs):
            self._logprobs += part.tokens
            return []
        members = self._finished_call()
        match part:
            case Text(text):
                members.append(self._text(text))
            case Reasoning(text):
                members.append(self.BEFORE_THINKING + _encode(text) + self.AFTER_THINKING)
            case ToolCallBegun():
                self._call = OpenCall(part)
            case Ended():
                self._ended = part
                members += map(self._text, self._no_calls)
            case Begun():
                pass
        return members

    def _finished_call(self) -> list[bytes]:
        """The call before, which is complete now."""
        call, self._call = self._call, None
        if call is None:
            return []
        begun, text = call.begun, "".join(call.arguments)
        arguments = arguments_of(text)
        if arguments is None:
            self._no_calls.append(as_text(begun.name, text))
            return []
        own_id = begun.id or self.exchange.call_id(0, begun.call)
        return [self.call(begun.call, own_id, begun.name, arguments)]

    def _text(self, text: str) -> bytes:
        return self.BEFORE_TEXT + _encode(text) + self.AFTER_TEXT

    def _line(self, members: bytes) -> bytes:
        if self._logprobs:
            members += b',"logprobs":' + _encode(logprobs_of(self._logprobs))
            self._logprobs = []
        return self._head + members + self._tail
