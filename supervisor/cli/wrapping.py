"""Wraps text at word boundaries while it streams in. Pure.

A word is held back until it is whole: only then its width is known.
"""

import unicodedata


class Wrapper:
    """The state between calls: `column` is the cursor's, the rest is the beginning of a word."""

    def __init__(self, width: int) -> None:
        self.column = 0
        self._width = max(1, width)
        self._word = ""
        self._word_cells = 0

    def feed(self, text: str) -> str:
        """Add `text`. Returns what can be printed now."""
        return "".join(self._character(character) for character in text)

    def flush(self) -> str:
        """Return the held-back word: the text pauses or has ended. Later text begins a new word."""
        word, cells = self._word, self._word_cells
        self._word, self._word_cells = "", 0
        if not word:
            return ""
        begin = "\n" if self.column and self.column + cells > self._width else ""
        self.column = cells if begin else self.column + cells
        return begin + word

    def _character(self, character: str) -> str:
        if character == "\n":
            said = self.flush() + "\n"
            self.column = 0
            return said
        if character.isspace():
            return self.flush() + self._space()
        cells = _cells(character)
        if cells == 2:  # scripts without spaces between words may break anywhere
            said = self.flush()
            self._word, self._word_cells = character, 2
            return said + self.flush()
        said = self.flush() if self._word_cells >= self._width else ""
        self._word += character
        self._word_cells += cells
        return said

    def _space(self) -> str:
        """A space, or nothing at the end of a line: the next word begins a line of its own."""
        if self.column >= self._width:
            return ""
        self.column += 1
        return " "


def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
