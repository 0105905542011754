"""OpenAI's streamed chunks, with everything but the text encoded once for each stream."""

import msgspec

from gpufc.errors import RequestError
from gpufc.protocol import FinishReason
from supervisor.dispatch.stream import StreamEvent, Usage
from supervisor.http.errors import error_object
from supervisor.http.schemas import Answer, UsageObject

DONE = b"data: [DONE]\n\n"

_json = msgspec.json.Encoder()


class ChunkWriter:
    """What all chunks of one stream share. Subclasses say what a choice looks like.

    Implements `sse.EventEncoder`.
    """

    END = DONE
    KIND: str
    BEFORE_TEXT: bytes
    AFTER_TEXT: bytes

    def __init__(self, answer: Answer, *, n_choices: int, include_usage: bool) -> None:
        shared = {
            "id": answer.id,
            "object": self.KIND,
            "created": answer.created,
            "model": answer.model,
            "system_fingerprint": answer.system_fingerprint,
        }
        self._include_usage = include_usage
        self._head = b"data: " + _json.encode(shared)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._heads = [self._head + b'{"index":%d,' % index for index in range(n_choices)]
        self._before = [head + self.BEFORE_TEXT for head in self._heads]
        self._after = self.AFTER_TEXT + b"null}" + self._tail

    def events(self, events: list[StreamEvent]) -> bytes:
        """One chunk for each choice's text, and one for its end."""
        parts: list[bytes] = []
        for event in events:
            if event.text:
                parts += (self._before[event.index], _json.encode(event.text), self._after)
            if event.finish is not None:
                parts.append(self._finish(event.index, event.finish))
        return b"".join(parts)

    def closing(self, usage: Usage) -> bytes:
        """The chunk of usage, if it was asked for, and the end."""
        if not self._include_usage:
            return DONE
        return self._head + b'],"usage":' + _json.encode(UsageObject.of(usage)) + b"}\n\n" + DONE

    def error(self, error: RequestError) -> bytes:
        """A stream's end by an error."""
        return b"data: " + _json.encode(error_object(error)) + b"\n\n" + DONE

    def _finish(self, index: int, reason: FinishReason) -> bytes:
        empty = self.BEFORE_TEXT + b'""' + self.AFTER_TEXT
        return self._heads[index] + empty + _json.encode(reason) + b"}" + self._tail


class CompletionChunks(ChunkWriter):
    KIND = "text_completion"
    BEFORE_TEXT = b'"text":'
    AFTER_TEXT = b',"logprobs":null,"finish_reason":'


class ChatChunks(ChunkWriter):
    """Each choice begins with a chunk that names the role, and ends with one of an empty delta."""

    KIND = "chat.completion.chunk"
    BEFORE_TEXT = b'"delta":{"content":'
    AFTER_TEXT = b'},"logprobs":null,"finish_reason":'

    _ROLE = b'"delta":{"role":"assistant","content":""}'
    _EMPTY = b'"delta":{}'
    _END = b',"logprobs":null,"finish_reason":'

    def __init__(self, answer: Answer, *, n_choices: int, include_usage: bool) -> None:
        super().__init__(answer, n_choices=n_choices, include_usage=include_usage)
        self._silent = set(range(n_choices))

    def events(self, events: list[StreamEvent]) -> bytes:
        if not self._silent:
            return super().events(events)
        opened = [event.index for event in events if event.index in self._silent]
        self._silent.difference_update(opened)
        after = self._END + b"null}" + self._tail
        roles = [self._heads[index] + self._ROLE + after for index in opened]
        return b"".join(roles) + super().events(events)

    def _finish(self, index: int, reason: FinishReason) -> bytes:
        end = self._EMPTY + self._END + _json.encode(reason) + b"}"
        return self._heads[index] + end + self._tail
