"""Shows an answer while it streams: wrapped on a terminal, unchanged in a pipe."""

import time
from typing import TextIO

import click

from supervisor.cli.terminal import columns, cut
from supervisor.cli.wrapping import Wrapper

PAUSE_S = 2.0
WAITING = " waiting for the engine…"


class AnswerView:
    """Writes one answer. On a terminal, a note that the answer is awaited stands behind the text.
    It is erased before the next write."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._wrapper = Wrapper(columns() - 1) if out.isatty() else None
        self._last_text = time.monotonic()
        self._has_note = False

    def text(self, piece: str) -> None:
        """Write a piece of the answer."""
        self._last_text = time.monotonic()
        self._clear_note()
        self._write(self._wrapper.feed(piece) if self._wrapper else piece)

    def alive(self) -> None:
        """Show that the service is alive and the answer is still awaited."""
        if self._wrapper and time.monotonic() - self._last_text >= PAUSE_S and not self._has_note:
            self._write(self._wrapper.flush())
            self._show_note(self._wrapper.column)

    def end(self) -> None:
        """End the answer."""
        self._clear_note()
        if self._wrapper:
            self._write(self._wrapper.flush())

    def _show_note(self, column: int) -> None:
        """Write the note in the rest of the line, and move the cursor back."""
        note = cut(WAITING if column else WAITING.lstrip(), columns() - 1 - column)
        if note:
            self._write(f"{click.style(note, dim=True)}\x1b[{len(note)}D")
            self._has_note = True

    def _clear_note(self) -> None:
        if self._has_note:
            self._write("\x1b[K")
            self._has_note = False

    def _write(self, text: str) -> None:
        if text:
            self._out.write(text)
            self._out.flush()
