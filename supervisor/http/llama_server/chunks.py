"""llama-server's streamed completion: events of text, and a last one with everything else."""

import msgspec

from gpufc.errors import RequestError
from supervisor.answers.parts import Ended, Text
from supervisor.dispatch.stream import StreamEvent, Usage
from supervisor.http.edge.errors import openai_error
from supervisor.http.edge.streams import COMMENT, SERVER_SENT_EVENTS
from supervisor.http.generation.dialect import Exchange
from supervisor.http.llama_server.answers import native_completion

_encode = msgspec.json.Encoder().encode


class NativeChunks:
    """Implements `streams.EventEncoder`. The answer's parser is that of plain text, so that its
    choices gain text and an end. Nothing follows the last choice's end."""

    CONTENT_TYPE = SERVER_SENT_EVENTS
    END = b""

    def __init__(self, exchange: Exchange, *, return_tokens: bool) -> None:
        n_choices = exchange.request.n_sequences
        self._exchange = exchange
        self._return_tokens = return_tokens
        self._before = [b'data: {"index":%d,"content":' % index for index in range(n_choices)]
        self._after = b',"tokens":[],"stop":false}\n\n'
        self._has_new_line = [False] * n_choices

    def events(self, events: list[StreamEvent]) -> bytes:
        chunks: list[bytes] = []
        for event in events:
            index = event.index
            for part in event.parts:
                if type(part) is Text:
                    chunks += (self._before[index], _encode(part.text), self._after)
                    self._has_new_line[index] = self._has_new_line[index] or "\n" in part.text
                elif isinstance(part, Ended):
                    chunks.append(self._last(index, part))
        return b"".join(chunks)

    def waiting(self) -> bytes:
        return COMMENT

    def closing(self, usage: Usage) -> bytes:
        return b""

    def error(self, error: RequestError) -> bytes:
        request_id = self._exchange.request.id
        return b"data: " + _encode(openai_error(error, request_id)) + b"\n\n"

    def _last(self, index: int, ended: Ended) -> bytes:
        exchange = self._exchange
        last = native_completion(
            exchange,
            index,
            ended,
            has_new_line=self._has_new_line[index],
            tokens=exchange.tokens_of(index) if self._return_tokens else (),
        )
        return b"data: " + _encode(last) + b"\n\n"
