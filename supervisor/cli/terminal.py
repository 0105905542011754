"""Terminal output: figures, a progress bar, a screen that is redrawn.

Not rich: its import takes a large part of the front's memory budget.
"""

import contextlib
import os
import select
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Protocol, TextIO

import click

from gpufc.amount import amount as amount

BAR_WIDTH = 30
PLAIN_STEP = 0.25


def duration(seconds: float) -> str:
    """Seconds as a person reads them: `3 min 20 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def cut(text: str, width: int) -> str:
    """`text` cut to `width` characters, with an ellipsis if it was longer."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def columns() -> int:
    """The terminal's width; a large one without a terminal."""
    return shutil.get_terminal_size((200, 24)).columns


class Output(Protocol):
    """The part of a text stream that `Progress` uses."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> None: ...
    def isatty(self) -> bool: ...


class Progress:
    """Progress of long work: one line that is redrawn on a terminal, a line now and then
    elsewhere."""

    def __init__(self, what: str, stream: Output | None = None) -> None:
        self._what = what
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._began = time.monotonic()
        self._told: str | None = None
        self._next_fraction = 0.0

    def fraction(self, done: float) -> None:
        """Show a fraction, 0…1."""
        done = min(max(done, 0.0), 1.0)
        if self._live:
            filled = round(done * BAR_WIDTH)
            bar = "█" * filled + "░" * (BAR_WIDTH - filled)
            self._redraw(f"{self._what}  {bar} {done:4.0%}  {duration(self._elapsed())}")
        elif done >= self._next_fraction:
            self._line(f"{self._what}: {done:.0%}")
            self._next_fraction = (done // PLAIN_STEP + 1) * PLAIN_STEP

    def note(self, text: str, limit_s: float | None = None) -> None:
        """Show a text where no fraction is known. The work takes at most `limit_s`."""
        limit = f" (at most {duration(limit_s)})" if limit_s is not None else ""
        if self._live:
            self._redraw(f"{self._what}: {text}  {duration(self._elapsed())}{limit}")
        elif text != self._told:
            self._told = text
            self._line(f"{self._what}: {text}{limit}")

    def end(self, text: str | None = None) -> None:
        """Remove the line, or leave `text` in its place."""
        if self._live:
            self._stream.write("\r\x1b[K")
        if text is not None:
            self._line(text)
        self._stream.flush()

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _redraw(self, text: str) -> None:
        self._stream.write(f"\r{cut(text, columns() - 1)}\x1b[K")
        self._stream.flush()

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


@contextlib.contextmanager
def input_mode(*, echo: bool, lines: bool) -> Iterator[None]:
    """Change the terminal's input mode until the end of the block; no effect without a terminal.

    Without `echo`, input is not shown. Without `lines`, each key arrives at once. Ctrl-C keeps its
    meaning.
    """
    if not sys.stdin.isatty():
        yield
        return
    import termios

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    changed = before.copy()
    changed[3] &= ~(0 if echo else termios.ECHO) & ~(0 if lines else termios.ICANON)
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, changed)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def key_within(seconds: float) -> str:
    """The pressed key; empty after `seconds`, or without a terminal.

    Call it within `input_mode(lines=False)`.
    """
    if not sys.stdin.isatty():
        time.sleep(seconds)
        return ""
    fd = sys.stdin.fileno()
    pressed, _, _ = select.select([fd], [], [], seconds)
    if not pressed:
        return ""
    key = os.read(fd, 64)
    if not key:  # the terminal is closed: select would report it as ready without end
        time.sleep(seconds)
    return key.decode("utf-8", "replace")


@contextlib.contextmanager
def full_screen(stream: TextIO) -> Iterator[None]:
    """Use the terminal's alternate screen, so that its former content returns at the end."""
    stream.write("\x1b[?1049h\x1b[?25l")
    try:
        yield
    finally:
        stream.write("\x1b[?25h\x1b[?1049l")
        stream.flush()


def redraw(stream: TextIO, lines: list[str]) -> None:
    """Overwrite the screen without flicker. Lines that do not fit are left out."""
    size = shutil.get_terminal_size()
    fitting = [_within(line, size.columns) for line in lines]
    if len(fitting) > size.lines:
        fitting = [*fitting[: size.lines - 1], "…"]
    stream.write("\x1b[H" + "\x1b[K\n".join(fitting) + "\x1b[K\x1b[J")
    stream.flush()


def _within(line: str, width: int) -> str:
    plain = click.unstyle(line)
    return line if len(plain) <= width else cut(plain, width)


def table(rows: list[dict[str, str]], width: int, optional: tuple[str, ...] = ()) -> list[str]:
    """Aligned columns under the first row's keys. Where they exceed `width`, optional columns are
    dropped in the given order, then the widest text is cut."""
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    names = _fitting(widths, width, optional)
    excess = _total(widths, names) - width
    if excess > 0:
        widest = max(names, key=lambda name: widths[name])
        widths[widest] = max(8, widths[widest] - excess)
    header = "  ".join(name.upper().ljust(widths[name]) for name in names)
    lines = [click.style(header.rstrip(), bold=True)]
    for row in rows:
        lines.append("  ".join(cut(row[n], widths[n]).ljust(widths[n]) for n in names).rstrip())
    return lines


def _fitting(widths: dict[str, int], width: int, optional: tuple[str, ...]) -> list[str]:
    """Columns that remain. A dropped column returns if a wider one left room for it."""
    gone: list[str] = []
    for name in optional:
        if _total(widths, [n for n in widths if n not in gone]) <= width:
            break
        gone.append(name)
    for name in reversed(gone.copy()):
        if _total(widths, [n for n in widths if n not in gone or n == name]) <= width:
            gone.remove(name)
    return [name for name in widths if name not in gone]


def _total(widths: dict[str, int], names: list[str]) -> int:
    return sum(widths[name] + 2 for name in names) - 2
