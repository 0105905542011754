"""llama-server's streamed completion: events of text, and a last one with everything else."""

from collections.abc import Sequence

import msgspec

from gpufc.errors import RequestError
from gpufc.protocol import TokenLogprobs
from supervisor.answers.parts import Ended, Logprobs, Text
from supervisor.dispatch.stream import StreamEvent, Usage
from supervisor.http.edge.errors import openai_error
from supervisor.http.edge.streams import COMMENT, SERVER_SENT_EVENTS
from supervisor.http.generation.dialect import Exchange
from supervisor.http.llama_server.answers import Shape, native_completion
from supervisor.http.llama_server.probabilities import written

AFTER_TEXT = b',"tokens":[],"stop":false'
END_OF_CHUNK = b"}\n\n"

_encode = msgspec.json.Encoder().encode


class NativeChunks:
    """Implements `streams.EventEncoder`. The answer's parser is that of plain text, so that its
    choices gain text and an end. Nothing follows the last choice's end.

    Probabilities go with the text that their tokens end; where none follows, they are an event of
    their own.
    """

    CONTENT_TYPE = SERVER_SENT_EVENTS
    END = b""

    def __init__(self, exchange: Exchange, shape: Shape) -> None:
        n_choices = exchange.request.n_sequences
        self._exchange = exchange
        self._shape = shape
        self._before = [b'data: {"index":%d,"content":' % index for index in range(n_choices)]
        self._has_new_line = [False] * n_choices

    def events(self, events: list[StreamEvent]) -> bytes:
        chunks: list[bytes] = []
        for event in events:
            index, found = event.index, tuple[TokenLogprobs, ...]()
            for part in event.parts:
                if type(part) is Text:
                    chunks += self._chunk(index, part.text, found)
                    found = ()
                elif isinstance(part, Logprobs):
                    found += part.tokens
                elif isinstance(part, Ended):
                    chunks += self._chunk(index, "", found) if found else ()
                    chunks.append(self._last(index, part))
                    found = ()
            chunks += self._chunk(index, "", found) if found else ()
        return b"".join(chunks)

    def waiting(self) -> bytes:
        return COMMENT

    def closing(self, usage: Usage) -> bytes:
        return b""

    def error(self, error: RequestError) -> bytes:
        request_id = self._exchange.request.id
        return b"data: " + _encode(openai_error(error, request_id)) + b"\n\n"

    def _chunk(self, index: int, text: str, found: Sequence[TokenLogprobs]) -> tuple[bytes, ...]:
        self._has_new_line[index] = self._has_new_line[index] or "\n" in text
        begun = (self._before[index], _encode(text), AFTER_TEXT)
        if not found:
            return (*begun, END_OF_CHUNK)
        shown = _encode(written(found, self._exchange.request.logprobs))
        return (*begun, b',"completion_probabilities":', shown, END_OF_CHUNK)

    def _last(self, index: int, ended: Ended) -> bytes:
        has_new_line = self._has_new_line[index]
        last = native_completion(
            self._exchange, index, ended, self._shape, has_new_line=has_new_line
        )
        return b"data: " + _encode(last) + b"\n\n"
