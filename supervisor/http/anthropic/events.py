"""Anthropic's streamed events. Their clients pass over an event without its name.

`message_start` comes with the first part, since it tells the prompt's tokens. Then come the
blocks, one open at a time; then `message_delta` with the end, and `message_stop`.
"""

import msgspec
from msgspec import structs

from gpufc.errors import RequestError
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
from supervisor.dispatch import stream
from supervisor.dispatch.stream import StreamEvent
from supervisor.http.anthropic.answer import (
    SIGNATURE,
    AnswerBlock,
    MessageObject,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
    Usage,
    call_id,
    stop_reason,
    stop_sequence,
)
from supervisor.http.edge.errors import anthropic_error
from supervisor.http.edge.streams import SERVER_SENT_EVENTS
from supervisor.http.generation.dialect import Exchange

_encode = msgspec.json.Encoder().encode

_EMPTY = msgspec.Raw(b"{}")


def _event(name: str, **fields: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), _encode({"type": name, **fields}))


PING = _event("ping")
STOP = _event("message_stop")

_PIECES: dict[type[Part], tuple[bytes, bytes]] = {
    Text: (b"text_delta", b"text"),
    Reasoning: (b"thinking_delta", b"thinking"),
    ToolCallBegun: (b"input_json_delta", b"partial_json"),
}
"""How the pieces of a block are sent, by the part that opens it: the type of delta, and its key."""

_DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"%s","%s":'
)
_DELTA_END = b"}}\n\n"


class MessageEvents:
    """The events of one stream. Implements `streams.EventEncoder`.

    `_open` is the kind of part that has opened the open block, None without one; `_index` is the
    number of the latest block. `_delta` is the beginning of the open block's deltas.
    """

    CONTENT_TYPE = SERVER_SENT_EVENTS
    END = b""

    def __init__(self, exchange: Exchange, *, shows_thinking: bool) -> None:
        self._exchange = exchange
        self._shows_thinking = shows_thinking
        self._index = -1
        self._open: type[Part] | None = None
        self._delta = b""

    def events(self, events: list[StreamEvent]) -> bytes:
        written: list[bytes] = []
        for event in events:
            for part in event.parts:
                if type(part) is Text and self._open is Text:
                    written += (self._delta, _encode(part.text), _DELTA_END)
                else:
                    written.append(self._rare(part))
        return b"".join(written)

    def waiting(self) -> bytes:
        return PING

    def closing(self, usage: stream.Usage) -> bytes:
        return STOP

    def error(self, error: RequestError) -> bytes:
        document = anthropic_error(error, self._exchange.request.id)
        return b"event: error\ndata: " + _encode(document) + b"\n\n"

    def _rare(self, part: Part) -> bytes:
        match part:
            case Begun():
                return _event("message_start", message=self._beginning())
            case Text(text):
                return self._opened(Text, TextBlock("")) + self._piece(text)
            case Reasoning(text):
                opened = self._opened(Reasoning, ThinkingBlock("", ""))
                return opened + self._piece(text) if self._shows_thinking else opened
            case ToolCallBegun():
                block = ToolUseBlock(call_id(self._exchange, part), part.name, _EMPTY)
                return self._opened(ToolCallBegun, block)
            case ToolCallArguments(_, text):
                return self._piece(text)
            case Logprobs():
                return b""
            case Ended():
                return self._closed() + self._ended(part)

    def _beginning(self) -> MessageObject:
        so_far = structs.replace(self._exchange.usage(), completion=0)
        return MessageObject(
            id=self._exchange.id,
            model=self._exchange.model,
            content=[],
            stop_reason=None,
            stop_sequence=None,
            usage=Usage.of(so_far),
        )

    def _opened(self, kind: type[Part], block: AnswerBlock) -> bytes:
        """The events that make room for a piece: none where its block is open."""
        if self._open is kind and kind is not ToolCallBegun:
            return b""
        closed = self._closed()
        self._index += 1
        self._open = kind
        self._delta = _DELTA % (self._index, *_PIECES[kind])
        return closed + _event("content_block_start", index=self._index, content_block=block)

    def _piece(self, text: str) -> bytes:
        return self._delta + _encode(text) + _DELTA_END

    def _closed(self) -> bytes:
        """The end of the open block, if there is one."""
        if self._open is None:
            return b""
        signed = b""
        if self._open is Reasoning:
            delta = {"type": "signature_delta", "signature": SIGNATURE}
            signed = _event("content_block_delta", index=self._index, delta=delta)
        self._open = None
        return signed + _event("content_block_stop", index=self._index)

    def _ended(self, ended: Ended) -> bytes:
        reason = stop_reason(ended, self._exchange, calls=ended.n_calls > 0)
        delta = {
            "stop_reason": reason,
            "stop_sequence": stop_sequence(ended, reason),
            "stop_details": None,
            "container": None,
        }
        return _event("message_delta", delta=delta, usage=Usage.of(self._exchange.usage()))
