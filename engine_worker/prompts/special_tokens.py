"""Finding special tokens in a text in linear time, and keeping them out of what users write.

llama.cpp does the first as well, but its time grows with the square of the number found, and the
text that it is given may be a megabyte of them.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain
from typing import Any

from engine_worker.backend.port import SpecialToken

WINDOW_CHARS = 1 << 16
"""Characters looked through at a time: meanwhile no other thread runs."""

_WHITESPACE = " \t\n\v\f\r"
"""C's `isspace`."""

_MARKS = (range(0xFDD0, 0xFDF0), range(0xF0000, 0xFFFFE))
"""Noncharacters, then private ones: a text that has them all is longer than any request."""


class SpecialTokenFinder:
    """Splits texts at special tokens as llama.cpp does. Immutable, for any thread.

    llama.cpp looks for the longest token in the whole text first, then for the next one in what is
    left. Where no two tokens can overlap this is the same as the leftmost, longest match.

    Each pattern is made when it is first needed: a vocabulary has thousands of special tokens, and
    a stop string needs one pattern only. A race makes a pattern twice.
    """

    def __init__(self, tokens: Iterable[SpecialToken]) -> None:
        self._tokens: dict[str, SpecialToken] = {}
        for token in tokens:
            self._tokens.setdefault(token.text, token)
        self._longest = max(map(len, self._tokens), default=1)
        self._can_overlap = _can_overlap(self._tokens)

    @cached_property
    def _all(self) -> re.Pattern[str] | None:
        return _pattern(self._tokens)

    @cached_property
    def _control(self) -> re.Pattern[str] | None:
        return _pattern(self._control_texts)

    @cached_property
    def _user_defined(self) -> re.Pattern[str] | None:
        return _pattern(text for text, token in self._tokens.items() if not token.is_control)

    @cached_property
    def _control_beginnings(self) -> frozenset[str]:
        return frozenset(text[:end] for text in self._control_texts for end in range(1, len(text)))

    @property
    def _control_texts(self) -> list[str]:
        return [text for text, token in self._tokens.items() if token.is_control]

    def split(self, text: str, *, control: bool) -> Iterator[str | int]:
        """The text's special tokens as ids, and the texts between them, in order.

        With `control` false, control tokens are text like any other.
        """
        if self._can_overlap:
            yield from self._split_by_length(text, control=control)
            return
        pattern = self._all if control else self._user_defined
        start, skip_space = 0, False
        for match in self._matches(pattern, text):
            token = self._tokens[match[0]]
            yield from _between(text[start : match.start()], skip_space, token.strips_left)
            yield token.id
            start, skip_space = match.end(), token.strips_right
        yield from _between(text[start:], skip_space, False)

    def _matches(self, pattern: re.Pattern[str] | None, text: str) -> Iterator[re.Match[str]]:
        at = 0
        while pattern is not None and at < len(text):
            # a match that begins in the window ends before the end of what is looked at
            match = pattern.search(text, at, at + WINDOW_CHARS + self._longest)
            if match is None or match.start() >= at + WINDOW_CHARS:
                at += WINDOW_CHARS
                continue
            yield match
            at = match.end()

    def _split_by_length(self, text: str, *, control: bool) -> Iterator[str | int]:
        parts: list[str | int] = [text] if text else []
        for token in sorted(self._tokens.values(), key=lambda one: -len(one.text.encode())):
            if token.is_control and not control:
                continue
            parts = [
                piece
                for part in parts
                for piece in ([part] if isinstance(part, int) else _split_at(part, token))
            ]
        yield from parts

    # what users write

    def marked(self, value: Any, mark: str) -> Any:
        """`value` with `mark` inside each control token that a text in it spells.

        Texts in lists, tuples and dicts (keys too) are marked; other values are kept. A text that
        ends with the beginning of a control token ends with the mark: a template may put another
        text right after it.
        """
        match value:
            case str():
                return self._marked(value, mark)
            case list() | tuple():
                return [self.marked(item, mark) for item in value]
            case dict():
                return {
                    self.marked(key, mark): self.marked(item, mark) for key, item in value.items()
                }
            case _:
                return value

    def _marked(self, text: str, mark: str) -> str:
        if self._control is None:
            return text
        parts: list[str] = []
        start = 0
        for match in self._matches(self._control, text):
            middle = match.start() + 1
            parts += (text[start:middle], mark)
            start = middle
        marked = "".join((*parts, text[start:]))
        ends = range(1, min(self._longest, len(text) + 1))
        if any(text[-length:] in self._control_beginnings for length in ends):
            marked += mark
        return marked


def unused_mark(value: Any) -> str:
    """A character that no text in `value` has, nor JSON's escape of it."""
    texts = list(_texts(value))
    used = set[str]()
    for text in texts:
        for at in range(0, len(text), WINDOW_CHARS):
            used.update(text[at : at + WINDOW_CHARS])
    escapes = any("\\u" in text for text in texts)
    return next(
        mark
        for mark in map(chr, chain(*_MARKS))
        if mark not in used
        and not (escapes and any(escaped(mark) in text.lower() for text in texts))
    )


def without_mark(text: str, mark: str) -> str:
    """A rendered text as it is without its marks, also those that a template wrote as JSON."""
    return text.replace(mark, "").replace(escaped(mark), "") if mark else text


def escaped(mark: str) -> str:
    """How JSON writes a character in ASCII."""
    units = mark.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list() | tuple():
            for item in value:
                yield from _texts(item)
        case dict():
            for key, item in value.items():
                yield from _texts(key)
                yield from _texts(item)
        case _:
            pass


def _between(text: str, skip_space: bool, strip_right: bool) -> Iterator[str]:
    if skip_space:
        text = text.lstrip(_WHITESPACE)
    if strip_right:
        text = text.rstrip(_WHITESPACE)
    if text:
        yield text


def _split_at(text: str, token: SpecialToken) -> Iterator[str | int]:
    first, *others = text.split(token.text)
    yield from _between(first, False, bool(others) and token.strips_left)
    for number, part in enumerate(others, 1):
        yield token.id
        is_last = number == len(others)
        yield from _between(part, token.strips_right, not is_last and token.strips_left)


def _can_overlap(texts: Iterable[str]) -> bool:
    """Whether the end of one text can be the beginning of another, so that both are there.

    Repetitions of one character do not count: the longest are found first either way.
    """
    texts = list(texts)
    # few of thousands of texts have a character further on that a text begins with
    firsts = {text[0] for text in texts}
    ending = [text for text in texts if not firsts.isdisjoint(text[1:])]
    inner = set[str]().union(*(text[1:] for text in ending))
    beginning = [text for text in texts if text[0] in inner]
    beginnings = {text[:end] for text in beginning for end in range(1, len(text))}
    if any(rest in beginnings for text in ending if _is_mixed(text) for rest in _rests(text)):
        return True
    mixed = {text[:end] for text in filter(_is_mixed, beginning) for end in range(1, len(text))}
    return any(rest in mixed for text in ending for rest in _rests(text))


def _is_mixed(text: str) -> bool:
    """Whether a text has several characters, not one again and again."""
    return len(set(text)) > 1


def _rests(text: str) -> Iterator[str]:
    return (text[start:] for start in range(1, len(text)))


def _pattern(texts: Iterable[str]) -> re.Pattern[str] | None:
    """Matches the longest of the texts. A tree: its time does not grow with their number."""
    found = sorted(set(texts))
    return re.compile(_tree(found)) if found else None


def _tree(texts: list[str]) -> str:
    """An expression for sorted, different texts: what they have in common, then what differs."""
    first, last = texts[0], texts[-1]
    n = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    n = min(len(first), len(last)) if n is None else n
    common, rests = re.escape(first[:n]), [text[n:] for text in texts]
    is_whole = rests[0] == ""
    if is_whole:
        rests = rests[1:]
    if not rests:
        return common
    groups: dict[str, list[str]] = {}
    for rest in rests:
        groups.setdefault(rest[0], []).append(rest)
    branches = "|".join(map(_tree, groups.values()))
    return f"{common}(?:{branches}){'?' if is_whole else ''}"
