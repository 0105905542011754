"""From an answer's parts to the items of its output. Pure.

One item is open at a time. Text opens a message, reasoning a reasoning item, a call an item of its
own. A part of another kind closes the item before it.
"""

from enum import StrEnum
from typing import Any

from msgspec import UNSET, Struct, UnsetType

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
from supervisor.http.generation.dialect import Exchange
from supervisor.http.responses.custom_input import CustomInput
from supervisor.http.responses.tools import Called, ToolTable


class Status(StrEnum):
    """OpenAI's words for the state of an item, and of a response."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"


class OutputText(Struct, frozen=True, kw_only=True):
    type: str = "output_text"
    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class SummaryText(Struct, frozen=True, kw_only=True):
    type: str = "summary_text"
    text: str


class MessageItem(Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    id: str
    status: Status
    role: str = "assistant"
    content: tuple[OutputText, ...]


class ReasoningItem(Struct, frozen=True, kw_only=True, tag_field="type", tag="reasoning"):
    """The whole reasoning is its summary: that is the part which clients show and send back."""

    id: str
    status: Status
    summary: tuple[SummaryText, ...]
    encrypted_content: None = None


class FunctionCallItem(Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    id: str
    status: Status
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    arguments: str


class CustomCallItem(Struct, frozen=True, kw_only=True, tag_field="type", tag="custom_tool_call"):
    id: str
    status: Status
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    input: str


OutputItem = MessageItem | ReasoningItem | FunctionCallItem | CustomCallItem


class Added(Struct, frozen=True):
    """An item has begun; it is empty so far."""

    index: int
    item: OutputItem


class Gained(Struct, frozen=True):
    """The open item has a further piece of its text, arguments or input."""

    text: str


class Done(Struct, frozen=True):
    """The item is whole, or was cut."""

    index: int
    item: OutputItem


Change = Added | Gained | Done


class _Open:
    """The item that grows."""

    PREFIX: str

    def __init__(self, item_id: str) -> None:
        self.id = item_id
        self.pieces: list[str] = []

    def gained(self, piece: str) -> str:
        """The text that a part brings."""
        return piece

    def rest(self) -> str:
        """The text that comes last."""
        return ""

    def item(self, status: Status) -> OutputItem:
        raise NotImplementedError


class _Message(_Open):
    PREFIX = "msg"

    def item(self, status: Status) -> MessageItem:
        is_new = status is Status.IN_PROGRESS
        content = () if is_new else (OutputText(text="".join(self.pieces)),)
        return MessageItem(id=self.id, status=status, content=content)


class _Reasoning(_Open):
    PREFIX = "rs"

    def item(self, status: Status) -> ReasoningItem:
        is_new = status is Status.IN_PROGRESS
        summary = () if is_new else (SummaryText(text="".join(self.pieces)),)
        return ReasoningItem(id=self.id, status=status, summary=summary)


class _Call(_Open):
    PREFIX = "fc"

    def __init__(self, item_id: str, call_id: str, called: Called) -> None:
        super().__init__(item_id)
        self.call_id = call_id
        self.called = called

    def rest(self) -> str:
        # clients parse the arguments of a call without any too
        return "" if self.pieces else "{}"

    def item(self, status: Status) -> OutputItem:
        return FunctionCallItem(
            id=self.id,
            status=status,
            call_id=self.call_id,
            name=self.called.name,
            namespace=self.called.namespace or UNSET,
            arguments="".join(self.pieces),
        )


class _CustomCall(_Call):
    PREFIX = "ctc"

    def __init__(self, item_id: str, call_id: str, called: Called) -> None:
        super().__init__(item_id, call_id, called)
        self._input = CustomInput()

    def gained(self, piece: str) -> str:
        return self._input.feed(piece)

    def rest(self) -> str:
        return self._input.end()

    def item(self, status: Status) -> CustomCallItem:
        return CustomCallItem(
            id=self.id,
            status=status,
            call_id=self.call_id,
            name=self.called.name,
            namespace=self.called.namespace or UNSET,
            input="".join(self.pieces),
        )


class Output:
    """The items of one answer so far. Its state is a function of the parts.

    `status` is the response's.
    """

    def __init__(self, exchange: Exchange, tools: ToolTable) -> None:
        self.items: list[OutputItem] = []
        self.status = Status.IN_PROGRESS
        self._exchange = exchange
        self._tools = tools
        self._open: _Open | None = None

    def feed(self, part: Part) -> list[Change]:
        """The changes that a part brings."""
        match part:
            case Text(text):
                return self._piece(_Message, text)
            case Reasoning(text):
                return self._piece(_Reasoning, text)
            case ToolCallArguments(_, text):
                return self._gain(text)
            case ToolCallBegun():
                return [*self._close(Status.COMPLETED), self._begin(self._call(part))]
            case Ended(reason):
                return self._end(reason)
            case Begun() | Logprobs():
                return []

    def _piece(self, kind: type[_Message] | type[_Reasoning], text: str) -> list[Change]:
        if type(self._open) is kind:
            return self._gain(text)
        closed = self._close(Status.COMPLETED)
        return [*closed, self._begin(kind(self._item_id(kind))), *self._gain(text)]

    def _call(self, part: ToolCallBegun) -> _Call:
        called = self._tools.of(part.name)
        kind = _CustomCall if called.is_custom else _Call
        own_id = part.id or self._exchange.call_id(0, part.call)
        return kind(self._item_id(kind), own_id, called)

    def _item_id(self, kind: type[_Open]) -> str:
        return f"{kind.PREFIX}_{self._exchange.request.id}_{len(self.items)}"

    def _begin(self, opened: _Open) -> Added:
        self._open = opened
        return Added(len(self.items), opened.item(Status.IN_PROGRESS))

    def _gain(self, piece: str) -> list[Change]:
        opened = self._open
        text = opened.gained(piece) if opened is not None else ""
        if opened is None or not text:
            return []
        opened.pieces.append(text)
        return [Gained(text)]

    def _close(self, status: Status) -> list[Change]:
        opened, self._open = self._open, None
        if opened is None:
            return []
        rest = opened.rest()
        if rest:
            opened.pieces.append(rest)
        item = opened.item(status)
        self.items.append(item)
        gained = [Gained(rest)] if rest else []
        return [*gained, Done(len(self.items) - 1, item)]

    def _end(self, reason: FinishReason) -> list[Change]:
        is_cut = reason is FinishReason.LENGTH
        self.status = Status.INCOMPLETE if is_cut else Status.COMPLETED
        changes = self._close(self.status)
        if not is_cut and all(isinstance(item, ReasoningItem) for item in self.items):
            # an answer without a word is still an answer
            changes += [self._begin(_Message(self._item_id(_Message))), *self._close(self.status)]
        return changes
