"""Wrapping text at word boundaries while it streams in. Pure.

A word is held back until it is whole, as only then it is known whether it fits on the line.
"""

import unicodedata


class Wrapper:
    """Between calls, `column` is where the terminal's cursor stands and the rest is a word's
    beginning."""

    def __init__(self, width: int) -> None:
        self.column = 0
        self._width = max(1, width)
        self._word = ""
        self._word_cells = 0

    def feed(self, text: str) -> str:
        """What can be printed now that `text` has come."""
        return "".join(self._character(character) for character in text)

    def flush(self) -> str:
        """What was held back: the text pauses or has ended. What comes next is taken for a new
        word."""
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
        if cells == 2:  # scripts that are written without spaces may break anywhere
            said = self.flush()
            self._word, self._word_cells = character, 2
            return said + self.flush()
        said = self.flush() if self._word_cells >= self._width else ""
        self._word += character
        self._word_cells += cells
        return said

    def _space(self) -> str:
        """A space; at the end of a line it is the line's break, and the next word makes it."""
        if self.column >= self._width:
            return ""
        self.column += 1
        return " "


def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
