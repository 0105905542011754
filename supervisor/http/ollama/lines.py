"""Ollama's streams: one JSON object a line, without blank lines, the last one with `done: true`."""

from typing import Any

import msgspec
from msgspec import Struct

from gpufc.errors import RequestError
from gpufc.protocol import FinishReason
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

NEWLINE_DELIMITED = "application/x-ndjson"

_WITHIN_A_CALL = (ToolCallArguments, Logprobs)
"""The parts that do not end an open call."""

_encode = msgspec.json.Encoder().encode


class OpenCall(Struct):
    """A call whose arguments are not complete."""

    begun: ToolCallBegun
    arguments: list[str] = []


class LineWriter:
    """The lines of one stream. A subclass says how an answer looks on its route.

    Implements `streams.EventEncoder`. A call is one line, once its arguments are complete. A call
    without proper arguments is text before the last line.
    """

    CONTENT_TYPE = NEWLINE_DELIMITED
    END = b""
    BEFORE_TEXT: bytes
    AFTER_TEXT: bytes
    BEFORE_THINKING: bytes
    AFTER_THINKING: bytes

    def __init__(self, exchange: Exchange) -> None:
        shared = {"model": exchange.model, "created_at": written(exchange.created)}
        head = _encode(shared)[:-1] + b","
        self.exchange = exchange
        self._head = head
        self._tail = b',"done":false}\n'
        self._before = head + self.BEFORE_TEXT
        self._after = self.AFTER_TEXT + self._tail
        self._call: OpenCall | None = None
        self._no_calls: list[str] = []
        self._ended = Ended(FinishReason.STOP)

    def events(self, events: list[StreamEvent]) -> bytes:
        lines: list[bytes] = []
        for event in events:
            for part in event.parts:
                if self._call is not None and type(part) not in _WITHIN_A_CALL:
                    lines.append(self._finished(self._call))
                if type(part) is Text:
                    lines += (self._before, _encode(part.text), self._after)
                else:
                    lines.append(self._rare(part))
        return b"".join(lines)

    def waiting(self) -> bytes:
        """A line without content: blank lines and comments break clients."""
        return self._text("")

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

    def _rare(self, part: Part) -> bytes:
        match part:
            case Begun() | Logprobs():
                return b""
            case Text(text):
                return self._text(text)
            case Reasoning(text):
                shown = self.BEFORE_THINKING + _encode(text) + self.AFTER_THINKING
                return self._head + shown + self._tail
            case ToolCallBegun():
                self._call = OpenCall(part)
                return b""
            case ToolCallArguments(_, text):
                if self._call is not None:
                    self._call.arguments.append(text)
                return b""
            case Ended():
                self._ended = part
                return b"".join(map(self._text, self._no_calls))

    def _text(self, text: str) -> bytes:
        return self._before + _encode(text) + self._after

    def _finished(self, call: OpenCall) -> bytes:
        self._call = None
        begun, text = call.begun, "".join(call.arguments)
        arguments = arguments_of(text)
        if arguments is None:
            self._no_calls.append(as_text(begun.name, text))
            return b""
        own_id = begun.id or self.exchange.call_id(0, begun.call)
        members = self.call(begun.call, own_id, begun.name, arguments)
        return self._head + members + self._tail
