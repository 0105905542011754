"""Finding stop strings in text that comes in pieces."""

from collections.abc import Iterable


class StopMatcher:
    """Looks for the first completed stop string in one sequence's text. Owned by who feeds it.

    Text that could still be the beginning of a stop string is held back, so that the returned
    texts joined never contain one. The stop string that is completed first counts, and of two
    completed by the same character the longer: a rule on the text alone, so that it does not
    matter how tokens cut it. After a hit it must not be fed again.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._beginnings = frozenset(stop[:n] for stop in self._stops for n in range(1, len(stop)))
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""

    @property
    def any(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._stops)

    def feed(self, text: str) -> tuple[str, bool]:
        """The text that is safe to send, and whether a stop string was found right after it."""
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
        """What is held back, when nothing more will come. It holds no whole stop string."""
        held, self._held = self._held, ""
        return held

    def _first_completed(self, text: str) -> int | None:
        """Where the stop string begins that ends first."""
        matches = [
            (place + len(stop), place) for stop in self._stops if (place := text.find(stop)) >= 0
        ]
        return min(matches)[1] if matches else None

    def _undecided_from(self, text: str) -> int:
        """Where the longest suffix begins that could be the beginning of a stop string."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[start:] in self._beginnings:
                return start
        return len(text)
