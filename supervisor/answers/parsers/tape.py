"""The text of one choice, read by a generator that waits at the end of what has arrived.

A family's parser is a generator (`Steps`). Its reading steps decide by the text alone, never by
where a piece ended: a step that needs the next character waits for it.
"""

import re
from collections.abc import Callable, Generator, Sequence
from functools import cached_property
from typing import TypeVar

from gpufc.protocol import FinishReason

T = TypeVar("T")

Steps = Generator[None, None, T]
"""A reading step: yields while it waits for more text."""

Take = Callable[[str], None]
"""Receives the pieces that a step reads."""

SPACE = re.compile(r"\s*")


class Malformed(Exception):
    """The text is not of the format. The tape stands where it stopped being so."""


class Cut(Exception):
    """The text ended in the middle of a step."""


class Markers:
    """A set of markers to search for. No marker may be a prefix of another.

    Patterns are compiled at the first search: a front imports all families, and serves few.
    """

    def __init__(self, *markers: str) -> None:
        if any(a != b and b.startswith(a) for a in markers for b in markers):
            raise ValueError(f"one marker is a prefix of another: {markers}")
        self._markers = markers
        self._longest = max(map(len, markers))

    @cached_property
    def _whole(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self._markers)))

    @cached_property
    def _first(self) -> re.Pattern[str]:
        return re.compile("|".join(re.escape(marker[0]) for marker in self._markers))

    @cached_property
    def _begun(self) -> re.Pattern[str]:
        return re.compile("|".join(map(_begun, self._markers)))

    def find(self, text: str, at: int) -> re.Match[str] | None:
        return self._whole.search(text, at)

    def safe(self, text: str, at: int) -> int:
        """Where a marker may begin at the end of a text that holds no whole one from `at`."""
        first = self._first.search(text, max(at, len(text) - self._longest + 1))
        if first is None:
            return len(text)
        found = self._begun.search(text, first.start())
        return len(text) if found is None else found.start()


def _begun(marker: str) -> str:
    """A pattern for a beginning of a marker, of one character or more, at the end of a text."""
    pattern = ""
    for char in reversed(marker[1:-1]):
        pattern = f"(?:{re.escape(char)}{pattern})?"
    return rf"{re.escape(marker[0])}{pattern}\Z"


class Tape:
    """Invariant: `text[at:]` is unread. Raw text is kept from `keep` until `release`."""

    __slots__ = ("_from", "_kept", "_n_kept", "at", "reason", "text")

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.reason: FinishReason | None = None
        self._kept: list[str] | None = None
        self._n_kept = 0
        self._from = 0

    def add(self, text: str) -> None:
        if self._kept is not None:
            self._kept.append(self.text[self._from : self.at])
            self._n_kept += self.at - self._from
        self.text = self.text[self.at :] + text
        self.at = self._from = 0

    def keep(self, marker: str = "") -> None:
        """Keep the raw text from this marker, which has just been read."""
        self._kept, self._n_kept, self._from = [marker], len(marker), self.at

    def kept(self) -> str:
        """The raw text since `keep`."""
        return "".join(self._kept or ()) + self.text[self._from : self.at]

    @property
    def n_kept(self) -> int:
        return self._n_kept + self.at - self._from

    def release(self) -> None:
        self._kept = None

    def more(self) -> Steps[None]:
        """Wait for more text. Raises `Cut` where there is none."""
        if self.reason is not None:
            raise Cut
        yield

    def until(self, markers: Markers, take: Take) -> Steps[str | None]:
        """Take the text before the next marker, read the marker and return it; None at the end."""
        while True:
            found = markers.find(self.text, self.at)
            at = self.at
            if found is not None:
                self.at = found.start()
            elif self.reason is not None:
                self.at = len(self.text)
            else:
                self.at = markers.safe(self.text, at)
            if self.at > at:
                take(self.text[at : self.at])
            if found is not None:
                self.at = found.end()
                return found.group()
            if self.reason is not None:
                return None
            yield

    def before(self, markers: Markers, take: Take) -> Steps[str]:
        """`until`, for text that must end with one of the markers."""
        marker = yield from self.until(markers, take)
        if marker is None:
            raise Cut
        return marker

    def peek(self) -> Steps[str]:
        """The next character, unread; empty at the end."""
        while self.at >= len(self.text):
            if self.reason is not None:
                return ""
            yield
        return self.text[self.at]

    def word(self, pattern: re.Pattern[str]) -> Steps[str]:
        """Read all characters that match: `pattern` is a repeated class of characters."""
        found: list[str] = []
        while True:
            match = pattern.match(self.text, self.at)
            end = match.end() if match else self.at
            found.append(self.text[self.at : end])
            self.at = end
            if end < len(self.text) or self.reason is not None:
                return "".join(found)
            yield

    def space(self) -> Steps[str]:
        """Read white space."""
        return (yield from self.word(SPACE))

    def accept(self, *markers: str) -> Steps[str]:
        """Read one of these markers if it comes next; empty if none does."""
        marker = yield from self._next(markers)
        self.at += len(marker)
        return marker

    def ahead(self, *markers: str) -> Steps[bool]:
        """Whether one of these markers comes next, or the end of the text, after a part of one."""
        marker = yield from self._next(markers)
        rest = self.text[self.at :]
        return bool(marker) or any(marker.startswith(rest) for marker in markers) or not rest

    def _next(self, markers: Sequence[str]) -> Steps[str]:
        while True:
            rest = self.text[self.at : self.at + max(map(len, markers), default=0)]
            for marker in markers:
                if rest.startswith(marker):
                    return marker
            begun = any(marker.startswith(rest) for marker in markers)
            ended = self.reason is not None
            if ended or (not begun and self.at < len(self.text)):
                return ""
            yield

    def expect(self, *markers: str) -> Steps[str]:
        """Read one of these markers. Raises `Malformed` if another text comes, `Cut` at the end."""
        marker = yield from self.accept(*markers)
        if not marker:
            rest = self.text[self.at :]
            raise Cut if any(marker.startswith(rest) for marker in markers) else Malformed
        return marker

    def something(self, text: str) -> Steps[str]:
        """This text, unless it is empty. Then raises `Cut` at the end, `Malformed` elsewhere."""
        if not text:
            raise Malformed if (yield from self.peek()) else Cut
        return text
