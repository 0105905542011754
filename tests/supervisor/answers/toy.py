"""A parser that is no model's: `<think>…</think>` is reasoning, `<call NAME>…</call>` a tool call.

It makes none, one or several parts of a piece of text, and holds back a possible marker.
"""

from collections.abc import Iterable

from gpufc.protocol import FinishReason
from supervisor.answers.parts import (
    Ended,
    Part,
    Reasoning,
    Text,
    ToolCallArguments,
    ToolCallBegun,
)

MARKERS = {
    "text": {"<think>": "reasoning", "<call ": "name"},
    "reasoning": {"</think>": "text"},
    "name": {">": "arguments"},
    "arguments": {"</call>": "text"},
}


class Toy:
    """Implements `supervisor.answers.parser.Parser`."""

    def __init__(self) -> None:
        self.state = "text"
        self.held = ""
        self.name = ""
        self.n_calls = 0

    def feed(self, text: str) -> list[Part]:
        parts: list[Part] = []
        rest, self.held = self.held + text, ""
        while rest:
            at, marker = first_marker(rest, MARKERS[self.state])
            if marker is None:
                self.held = rest[at:]
            parts += self.gained(rest[:at])
            if marker is None:
                break
            rest = rest[at + len(marker) :]
            parts += self.entered(MARKERS[self.state][marker])
        return parts

    def end(self, reason: FinishReason) -> list[Part]:
        return [*self.gained(self.held), Ended(reason, self.n_calls)]

    def gained(self, text: str) -> list[Part]:
        if self.state == "name":
            self.name += text
        if not text or self.state == "name":
            return []
        if self.state == "arguments":
            return [ToolCallArguments(self.n_calls - 1, text)]
        return [Text(text) if self.state == "text" else Reasoning(text)]

    def entered(self, state: str) -> list[Part]:
        was, self.state = self.state, state
        if was != "name":
            return []
        name, self.name = self.name, ""
        self.n_calls += 1
        return [ToolCallBegun(self.n_calls - 1, name)]


def first_marker(text: str, markers: Iterable[str]) -> tuple[int, str | None]:
    """Where the first marker is, or where one may begin at the end of the text."""
    found = [(text.index(marker), marker) for marker in markers if marker in text]
    if found:
        return min(found)
    longest = max(map(len, markers))
    for n in range(min(longest - 1, len(text)), 0, -1):
        if any(marker.startswith(text[-n:]) for marker in markers):
            return len(text) - n, None
    return len(text), None
