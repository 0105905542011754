"""The search for stop strings in text that arrives in pieces."""

from collections.abc import Callable, Iterable

SpecialSplit = Callable[[str], Iterable[str | int]]
"""A text's special tokens as ids, with the texts between them."""

_FIRST_STAND_IN = 0xD800
"""Half surrogate pairs stand for special tokens: no decoded text contains one."""


class StopMatcher:
    """Finds the stop string that is completed first in one sequence's text.

    The returned texts joined never contain a stop string: text that could be the beginning of one
    is held back. Of two stop strings that one character completes, the longer one counts. Both
    rules depend on the text alone, not on its pieces. A matcher is not fed again after a match.

    A stop string that spells special tokens is also found where these tokens are generated, though
    they have no text: `stand_in` is what to feed for such a token.

    A match is told as the index of its stop string in `stops`, the first one of equals.
    """

    def __init__(self, stops: Iterable[str], split: SpecialSplit | None = None) -> None:
        self._stand_ins: dict[int, str] = {}
        plain = [(stop, index) for index, stop in enumerate(stops) if stop]
        special = [(self._with_stand_ins(split(stop)), index) for stop, index in plain if split]
        self._stops = dict(reversed((*plain, *special)))
        self._beginnings = frozenset(stop[:n] for stop in self._stops for n in range(1, len(stop)))
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""

    @property
    def any(self) -> bool:
        """Whether there are stop strings at all."""
        return bool(self._stops)

    def stand_in(self, token: int) -> str:
        """The text to feed for a token that has none."""
        return self._stand_ins.get(token, "")

    def feed(self, text: str) -> tuple[str, int | None]:
        """The text that is safe to send, and the index of the stop string that follows it."""
        if not self._stops:
            return text, None
        sent, found = self._feed(text)
        return self._without_stand_ins(sent), found

    def _feed(self, text: str) -> tuple[str, int | None]:
        pending = self._held + text
        found = self._first_completed(pending)
        if found is not None:
            self._held = ""
            start, stop = found
            return pending[:start], self._stops[stop]
        undecided = self._undecided_from(pending)
        self._held = pending[undecided:]
        return pending[:undecided], None

    def flush(self) -> str:
        """The text that was held back, at the end of the sequence."""
        held, self._held = self._held, ""
        return self._without_stand_ins(held)

    def _with_stand_ins(self, parts: Iterable[str | int]) -> str:
        return "".join(
            part
            if isinstance(part, str)
            else self._stand_ins.setdefault(part, chr(_FIRST_STAND_IN + len(self._stand_ins)))
            for part in parts
        )

    def _without_stand_ins(self, text: str) -> str:
        for stand_in in self._stand_ins.values():
            text = text.replace(stand_in, "")
        return text

    def _first_completed(self, text: str) -> tuple[int, str] | None:
        """The start of the stop string that ends first, the longest one of equals, and itself."""
        matches = [
            (place + len(stop), place, stop)
            for stop in self._stops
            if (place := text.find(stop)) >= 0
        ]
        return min(matches)[1:] if matches else None

    def _undecided_from(self, text: str) -> int:
        """The start of the longest suffix that could be the beginning of a stop string."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[start:] in self._beginnings:
                return start
        return len(text)
