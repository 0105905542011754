"""From an answer's parts to the items of its output. Pure.

One item is open at a time. Text opens a message, reasoning a reasoning item, a call an item of its
own. A part of another kind closes the item before it.
"""

from collections.abc import Callable
from functools import partial

from msgspec import Struct

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
from supervisor.http.generation.content_tokens import ContentToken, content_tokens
from supervisor.http.generation.dialect import Exchange
from supervisor.http.responses.output_items import (
    OpenCall,
    OpenCustomCall,
    OpenItem,
    OpenMessage,
    OpenReasoning,
    OutputItem,
    ReasoningItem,
    Status,
)
from supervisor.http.responses.tools import ToolTable


class Added(Struct, frozen=True):
    """An item has begun; it is empty so far."""

    index: int
    item: OutputItem


class Gained(Struct, frozen=True):
    """The open item has a further piece of its text, arguments or input. `logprobs` are those of a
    text's tokens."""

    text: str
    logprobs: tuple[ContentToken, ...] = ()


class Done(Struct, frozen=True):
    """The item is whole, or was cut."""

    index: int
    item: OutputItem


Change = Added | Gained | Done


class Output:
    """The items of one answer so far. Its state is a function of the parts.

    `status` is the response's. With `seals`, reasoning has an `encrypted_content`. Log
    probabilities wait for the next text.
    """

    def __init__(self, exchange: Exchange, tools: ToolTable, *, seals: bool = False) -> None:
        self.items: list[OutputItem] = []
        self.status = Status.IN_PROGRESS
        self._exchange = exchange
        self._tools = tools
        self._seals = seals
        self._open: OpenItem | None = None
        self._logprobs: list[ContentToken] = []

    def feed(self, part: Part) -> list[Change]:
        """The changes that a part brings."""
        match part:
            case Text(text):
                is_open = isinstance(self._open, OpenMessage)
                return [*([] if is_open else self._message()), *self._gain(text)]
            case Logprobs(tokens):
                self._logprobs += content_tokens(tokens)
                return []
            case Reasoning(text):
                is_open = isinstance(self._open, OpenReasoning)
                return [*([] if is_open else self._reasoning()), *self._gain(text)]
            case ToolCallBegun():
                return self._call(part)
            case ToolCallArguments(_, text):
                return self._gain(text)
            case Ended(reason):
                return self._end(reason)
            case Begun():
                return []

    def more(self, text: str) -> None:
        """As `feed` with further text of the open message."""
        if self._open is not None:
            self._open.pieces.append(text)

    def _message(self) -> list[Change]:
        return self._begin("msg", OpenMessage)

    def _reasoning(self) -> list[Change]:
        return self._begin("rs", partial(OpenReasoning, sealed=self._seals))

    def _call(self, part: ToolCallBegun) -> list[Change]:
        called = self._tools.of(part.name)
        own_id = part.id or self._exchange.call_id(0, part.call)
        if called.is_custom:
            return self._begin("ctc", partial(OpenCustomCall, call_id=own_id, called=called))
        return self._begin("fc", partial(OpenCall, call_id=own_id, called=called))

    def _begin(self, prefix: str, make: Callable[[str], OpenItem]) -> list[Change]:
        """Close the open item and open another one."""
        closed = self._close(Status.COMPLETED)
        index = len(self.items)
        self._open = make(f"{prefix}_{self._exchange.request.id}_{index}")
        return [*closed, Added(index, self._open.item(Status.IN_PROGRESS))]

    def _gain(self, piece: str) -> list[Change]:
        opened = self._open
        text = opened.gained(piece) if opened is not None else ""
        if opened is None or not text:
            return []
        opened.pieces.append(text)
        return [Gained(text, self._told(opened))]

    def _told(self, opened: OpenItem) -> tuple[ContentToken, ...]:
        """The log probabilities that go with what the open item has gained."""
        if not isinstance(opened, OpenMessage) or not self._logprobs:
            return ()
        told, self._logprobs = tuple(self._logprobs), []
        opened.logprobs += told
        return told

    def _close(self, status: Status) -> list[Change]:
        opened, self._open = self._open, None
        if opened is None:
            return []
        rest = opened.rest()
        if rest:
            opened.pieces.append(rest)
        item = opened.item(status)
        self.items.append(item)
        return [*([Gained(rest)] if rest else []), Done(len(self.items) - 1, item)]

    def _end(self, reason: FinishReason) -> list[Change]:
        is_cut = reason is FinishReason.LENGTH
        told = () if self._open is None else self._told(self._open)
        self.status = Status.INCOMPLETE if is_cut else Status.COMPLETED
        changes = [*([Gained("", told)] if told else []), *self._close(self.status)]
        if not is_cut and all(isinstance(item, ReasoningItem) for item in self.items):
            # an answer without a word is still an answer
            changes += [*self._message(), *self._close(self.status)]
        return changes
