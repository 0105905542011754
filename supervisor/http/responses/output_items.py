"""The items of an answer's output, and one of them while it grows. Pure."""

from enum import StrEnum
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from supervisor.http.generation.content_tokens import ContentToken
from supervisor.http.responses.custom_input import CustomInput
from supervisor.http.responses.tools import Called


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
    logprobs: tuple[ContentToken, ...] = ()


class SummaryText(Struct, frozen=True, kw_only=True):
    type: str = "summary_text"
    text: str


class MessageItem(Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    id: str
    status: Status
    role: str = "assistant"
    content: tuple[OutputText, ...]


class ReasoningItem(Struct, frozen=True, kw_only=True, tag_field="type", tag="reasoning"):
    """The whole reasoning is its summary: that is the part which clients show and send back.

    `encrypted_content` hides nothing. Clients that keep the conversation themselves send reasoning
    back only if there is one, so it is the item's id where they ask for it.
    """

    id: str
    status: Status
    summary: tuple[SummaryText, ...]
    encrypted_content: str | None = None


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


class OpenItem:
    """The item that grows."""

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


class OpenMessage(OpenItem):
    def __init__(self, item_id: str) -> None:
        super().__init__(item_id)
        self.logprobs: list[ContentToken] = []

    def item(self, status: Status) -> MessageItem:
        is_new = status is Status.IN_PROGRESS
        text = OutputText(text="".join(self.pieces), logprobs=tuple(self.logprobs))
        content = () if is_new else (text,)
        return MessageItem(id=self.id, status=status, content=content)


class OpenReasoning(OpenItem):
    def __init__(self, item_id: str, *, sealed: bool) -> None:
        super().__init__(item_id)
        self._seal = item_id if sealed else None

    def item(self, status: Status) -> ReasoningItem:
        is_new = status is Status.IN_PROGRESS
        summary = () if is_new else (SummaryText(text="".join(self.pieces)),)
        return ReasoningItem(
            id=self.id, status=status, summary=summary, encrypted_content=self._seal
        )


class OpenCall(OpenItem):
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


class OpenCustomCall(OpenCall):
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
