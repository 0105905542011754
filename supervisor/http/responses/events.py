"""OpenAI's events of a streamed response.

Each event has its type as its name, and a number: the place in its stream. The first ones say that
the response was created. The last one holds it whole.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from gpufc.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    Overloaded,
    RateLimited,
    RequestError,
)
from supervisor.answers.parts import Part, Text
from supervisor.dispatch.stream import StreamEvent, Usage
from supervisor.http.edge.errors import DEFAULT_RETRY_AFTER_S
from supervisor.http.edge.streams import SERVER_SENT_EVENTS
from supervisor.http.generation.content_tokens import ContentToken
from supervisor.http.responses.answer import ErrorObject, Reply, ResponseObject
from supervisor.http.responses.output import Added, Change, Done, Gained, Output
from supervisor.http.responses.output_items import (
    CustomCallItem,
    FunctionCallItem,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    Status,
    SummaryText,
)

_encode = msgspec.json.Encoder().encode

Keep = Callable[[ResponseObject], None]
"""Is given a response that has ended with an answer."""


def error_object(error: RequestError) -> ErrorObject:
    """The error of a response that has failed, with a code that clients act on."""
    message = error.message
    if isinstance(error, (RateLimited, Overloaded, EngineUnavailable)):
        # Codex reads the time in this form
        wait_s = error.retry_after_s or DEFAULT_RETRY_AFTER_S
        return ErrorObject("rate_limit_exceeded", f"{message}. Please try again in {wait_s:.0f}s.")
    if isinstance(error, ContextLengthExceeded):
        return ErrorObject(error.code, message)
    return ErrorObject("invalid_prompt" if error.status < 500 else "server_error", message)


class Numbered:
    """Writes events with their numbers."""

    def __init__(self) -> None:
        self.n_written = 0

    def event(self, kind: str, **fields: Any) -> bytes:
        return self.numbered(_head(kind, {}), b"," + _encode(fields)[1:])

    def numbered(self, head: bytes, rest: bytes) -> bytes:
        """An event of which all is encoded but its number, which stands between the two."""
        number = self.n_written
        self.n_written = number + 1
        return b"%b%d%b\n\n" % (head, number, rest)


def _head(kind: str, fields: dict[str, Any]) -> bytes:
    """The beginning of an event, up to its number."""
    known = _encode({"type": kind, **fields})[:-1]
    return b'event: %b\ndata: %b,"sequence_number":' % (kind.encode(), known)


def failed_stream(reply: Reply, error: RequestError) -> bytes:
    """The whole stream of a response that fails before it begins."""
    numbered = Numbered()
    return _beginning(numbered, reply) + _failure(numbered, reply, (), error)


def _beginning(numbered: Numbered, reply: Reply) -> bytes:
    now = reply.document(Status.IN_PROGRESS)
    return numbered.event("response.created", response=now) + numbered.event(
        "response.in_progress", response=now
    )


def _failure(
    numbered: Numbered, reply: Reply, output: tuple[OutputItem, ...], error: RequestError
) -> bytes:
    failed = reply.document(Status.FAILED, output=output, error=error_object(error))
    return numbered.event("response.failed", response=failed)


class ResponseEvents:
    """The events of one stream. Implements `streams.EventEncoder`."""

    CONTENT_TYPE = SERVER_SENT_EVENTS
    END = b""

    def __init__(
        self,
        reply: Reply,
        output: Output,
        keep: Keep,
        clock: Callable[[], float],
        *,
        has_logprobs: bool = False,
    ) -> None:
        self._reply = reply
        self._output = output
        self._keep = keep
        self._clock = clock
        self._numbered = Numbered()
        self._has_begun = False
        self._has_logprobs = has_logprobs
        self._in_message = False
        self._delta_head = b""

    def events(self, events: list[StreamEvent]) -> bytes:
        written: list[bytes] = []
        for event in events:
            for part in event.parts:
                if self._in_message and type(part) is Text and not self._has_logprobs:
                    self._output.more(part.text)
                    written.append(self._delta(part.text))
                else:
                    written.append(self._rare(part))
        return b"".join(written)

    def waiting(self) -> bytes:
        """Clients count the time between events, so a comment would not do."""
        if not self._has_begun:
            return self._begun()
        now = self._reply.document(Status.IN_PROGRESS)
        return self._numbered.event("response.in_progress", response=now)

    def closing(self, usage: Usage) -> bytes:
        status = self._output.status
        whole = self._reply.document(
            status,
            output=tuple(self._output.items),
            usage=usage,
            completed_at=int(self._clock()),
        )
        self._keep(whole)
        return self._numbered.event(f"response.{status}", response=whole)

    def error(self, error: RequestError) -> bytes:
        output = tuple(self._output.items)
        return self._begun() + _failure(self._numbered, self._reply, output, error)

    def _begun(self) -> bytes:
        """The first events, once."""
        if self._has_begun:
            return b""
        self._has_begun = True
        return _beginning(self._numbered, self._reply)

    def _rare(self, part: Part) -> bytes:
        return self._begun() + b"".join(map(self._change, self._output.feed(part)))

    def _change(self, change: Change) -> bytes:
        match change:
            case Added(index, item):
                return self._added(index, item)
            case Gained(text, logprobs):
                return self._delta(text, logprobs)
            case Done(index, item):
                return self._done(index, item)

    def _delta(self, text: str, logprobs: tuple[ContentToken, ...] = ()) -> bytes:
        written = b',"delta":' + _encode(text)
        if self._in_message:
            written += b',"logprobs":' + (_encode(logprobs) if logprobs else b"[]")
        return self._numbered.numbered(self._delta_head, written + b"}")

    def _added(self, index: int, item: OutputItem) -> bytes:
        event, place = self._numbered.event, _place(index, item)
        added = event("response.output_item.added", output_index=index, item=item)
        self._in_message = isinstance(item, MessageItem)
        match item:
            case MessageItem():
                kind = "output_text"
                added += event("response.content_part.added", **place, part=OutputText(text=""))
            case ReasoningItem():
                kind = "reasoning_summary_text"
                part = SummaryText(text="")
                added += event("response.reasoning_summary_part.added", **place, part=part)
            case FunctionCallItem():
                kind = "function_call_arguments"
            case CustomCallItem():
                kind = "custom_tool_call_input"
        self._delta_head = _head(f"response.{kind}.delta", place)
        return added

    def _done(self, index: int, item: OutputItem) -> bytes:
        event, place = self._numbered.event, _place(index, item)
        self._in_message = False
        match item:
            case MessageItem(content=(part,)):
                done = event(
                    "response.output_text.done", **place, text=part.text, logprobs=part.logprobs
                )
                done += event("response.content_part.done", **place, part=part)
            case ReasoningItem(summary=(part,)):
                done = event("response.reasoning_summary_text.done", **place, text=part.text)
                done += event("response.reasoning_summary_part.done", **place, part=part)
            case FunctionCallItem(name=name, arguments=arguments):
                kind = "response.function_call_arguments.done"
                done = event(kind, **place, name=name, arguments=arguments)
            case CustomCallItem(input=text):
                done = event("response.custom_tool_call_input.done", **place, input=text)
            case _:
                raise ValueError("an item is whole when it is done")
        return done + event("response.output_item.done", output_index=index, item=item)


def _place(index: int, item: OutputItem) -> dict[str, Any]:
    """Where the events of an item's text belong."""
    place: dict[str, Any] = {"item_id": item.id, "output_index": index}
    match item:
        case MessageItem():
            return place | {"content_index": 0}
        case ReasoningItem():
            return place | {"summary_index": 0}
        case FunctionCallItem() | CustomCallItem():
            return place
