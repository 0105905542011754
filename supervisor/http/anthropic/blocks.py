"""The content blocks of a request, and the text that each of them brings. Pure.

Only text is served. A message's picture is refused. In a tool's result a note stands for it: a tool
that shows pictures must not end an agent's session.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from gpufc.errors import InvalidRequest
from supervisor.http.generation.history import left_out

PARAGRAPH = "\n\n"
"""Between the texts of one turn."""

PASSED_OVER = frozenset(
    {
        "advisor_tool_result",
        "bash_code_execution_tool_result",
        "code_execution_tool_result",
        "compaction",
        "container_upload",
        "fallback",
        "mcp_tool_listing",
        "mcp_tool_result",
        "mcp_tool_use",
        "redacted_thinking",
        "server_tool_use",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "web_fetch_tool_result",
        "web_search_tool_result",
    }
)
"""Kinds that Anthropic's own service has made for itself earlier in a conversation."""


class Source(Struct, frozen=True):
    """The place of a document's content. Only text that stands in the request is served."""

    type: str
    data: str | None = None
    content: "str | list[Block] | None" = None


class Block(Struct, frozen=True):
    """One block of any kind. Each kind has some of the fields; further ones are ignored."""

    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    tool_name: str | None = None
    content: "str | list[Block] | dict[str, Any] | None" = None
    is_error: bool | None = None
    source: Source | str | None = None
    title: str | None = None
    context: str | None = None


Blocks = str | list[Block] | None


def as_blocks(content: Blocks) -> list[Block]:
    """A content as blocks: a text is one block, and an empty one is none."""
    if isinstance(content, str):
        return [Block("text", text=content)] if content else []
    return content or []


def joined(texts: Iterable[str]) -> str:
    """The texts of one turn as one."""
    return PARAGRAPH.join(text for text in texts if text)


def refusal(place: str, reason: str) -> InvalidRequest:
    """The error of one part of a request. Anthropic's form of errors names a place in its text."""
    return InvalidRequest(f"{place}: {reason}", param=place)


def text_of(block: Block, place: str) -> str:
    """The text of a block in a message. Raises `InvalidRequest` for one that is not text."""
    text = _text(block)
    if text is None:
        kind = block.type[:50]
        raise refusal(place, f"content of type {kind!r} cannot be served here; text can")
    return text


def result_of(block: Block) -> str:
    """The text of a `tool_result`, with a note for each part that is not text. Raises msgspec's
    errors for an object that is no block."""
    content = block.content
    if isinstance(content, dict):  # one block, which some clients do not put into a list
        content = [msgspec.convert(content, Block)]
    parts = ((part, _text(part)) for part in as_blocks(content))
    text = joined(_note(part) if said is None else said for part, said in parts)
    return f"Error: {text}" if block.is_error else text


def _note(block: Block) -> str:
    if block.type == "tool_reference":
        return f"[tool: {block.tool_name}]"
    return left_out(block.type)


def _text(block: Block) -> str | None:
    """The text that a block brings; None for one of another kind."""
    match block:
        case Block(type="text"):
            return block.text or ""
        case Block(type="search_result", content=str() | list() as content):
            return _titled(block, content)
        case Block(type="document", source=Source(type="text", data=str() as content)):
            return _titled(block, content)
        case Block(type="document", source=Source(type="content", content=content)):
            return _titled(block, content)
        case _:
            return None


def _titled(block: Block, content: Blocks) -> str | None:
    """A document's text below its title; None if a part of it is no text."""
    texts = [_text(part) for part in as_blocks(content)]
    if None in texts:
        return None
    return "\n".join(filter(None, (block.title, block.context, joined(filter(None, texts)))))
