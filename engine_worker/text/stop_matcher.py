"""The search for stop strings in text that arrives in pieces."""

from collections.abc import Iterable


class StopMatcher:
    """Finds the stop string that is completed first in one sequence's text.

    The returned texts joined never contain a stop string: text that could be the beginning of one
    is held back. Of two stop strings that one character completes, the longer one counts. Both
    rules depend on the text alone, not on its pieces. A matcher is not fed again after a match.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._beginnings = frozenset(stop[:n] for stop in self._stops for n in range(1, len(stop)))
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""

    @property
    def any(self) -> bool:
        """Whether there are stop strings at all."""
        return bool(self._stops)

    def feed(self, text: str) -> tuple[str, bool]:
        """The text that is safe to send, and whether a stop string follows it."""
        if not self._stops:
            return text, False
        pending = self._held + text
        found = self._first_completed(pending)
        if found is not None:
            self._held = ""
            return pending[:found], True
        undecided = self._undecided_from(pending)
        self._held = pending[undecided:]
        return pending[:undecided], False

    def flush(self) -> str:
        """The text that was held back, at the end of the sequence."""
        held, self._held = self._held, ""
        return held

    def _first_completed(self, text: str) -> int | None:
        """The start of the stop string that ends first, the longest one of equals."""
        matches = [
            (place + len(stop), place) for stop in self._stops if (place := text.find(stop)) >= 0
        ]
        return min(matches)[1] if matches else None

    def _undecided_from(self, text: str) -> int:
        """The start of the longest suffix that could be the beginning of a stop string."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[start:] in self._beginnings:
                return start
        return len(text)
