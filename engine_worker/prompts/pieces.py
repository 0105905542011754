"""Where a text may be cut so that its pieces have the tokens of the whole.

Tokenizers split a text before they merge: a cut is exact where such a split is certain, whatever
stands around it. Where no token of the vocabulary spans the cut, no merge crosses it either. What
this module assumes is tested against whole tokenization for every pre-tokenizer of llama.cpp.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from engine_worker.prompts.special_tokens import WINDOW_CHARS

PIECE_CHARS = 8192
"""About how long a piece becomes."""

MAX_PIECE_CHARS = 16_384
"""What a thread of this process may be given: llama.cpp's regular expressions recurse, and at this
length needed 6 MiB of stack."""

MAX_DIGITS = 2048
"""Digits in a row that a thread may be given: one pre-tokenizer's time for them is quadratic, and
16,384 took 23 s."""

CUTS = (
    # what stands before the cut, and behind it
    ("A-Za-z", " "),
    ("A-Za-z", "\n"),
    ("\u4e00-\u9fff", "\uff0c"),
    ("\u4e00-\u9fff", "\u3002"),
)

_LONG_NUMBER = re.compile(rf"(?<!\d)\d{{{MAX_DIGITS + 1}}}")


class Cutter:
    """Cuts texts for one vocabulary. Immutable, for any thread."""

    def __init__(self, spellings: Iterable[bytes], tokenize: Callable[[str], list[int]]) -> None:
        """`spellings` are those of all tokens that are not special."""
        every = b"\0".join(spellings).decode("utf-8", "replace")
        patterns = [f"[{before}]{behind}" for before, behind in CUTS]
        patterns = [one for one in patterns if not re.search(one, every)]
        whole = tokenize("ab cd ef")
        self._drops_space = False
        if whole != tokenize("ab") + tokenize(" cd ef"):
            # the tokenizer puts a space before every text, which takes the place of one
            self._drops_space = whole == tokenize("ab") + tokenize("cd ef")
            patterns = [one for one in patterns if one.endswith(" ") and self._drops_space]
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    def pieces(self, text: str) -> Iterator[str]:
        """The text in pieces: as few as possible are longer than `MAX_PIECE_CHARS`."""
        start = 0
        while len(text) - start > MAX_PIECE_CHARS:
            cut = self._cut_after(text, start)
            if cut is None:
                break
            yield text[start:cut]
            start = cut + self._drops_space
        if start < len(text):
            yield text[start:]

    def _cut_after(self, text: str, start: int) -> int | None:
        if self._pattern is None:
            return None
        aim, limit = start + PIECE_CHARS, start + MAX_PIECE_CHARS
        found = self._pattern.search(text, aim, limit)
        if found is None:
            found = next(iter(deque(self._pattern.finditer(text, start, aim + 1), maxlen=1)), None)
        found = found or _first_from(self._pattern, text, limit - 1)
        # the space that is dropped must not be all that is left
        if found is None or (self._drops_space and found.end() == len(text)):
            return None
        return found.start() + 1


def _first_from(pattern: re.Pattern[str], text: str, start: int) -> re.Match[str] | None:
    """The first cut from `start` on. Each search is short: meanwhile no other thread runs."""
    for at in range(start, len(text), WINDOW_CHARS):
        # a cut stands between two characters, the second of which may be the next window's
        found = pattern.search(text, at, at + WINDOW_CHARS + 1)
        if found is not None:
            return found
    return None


def is_safe(piece: str) -> bool:
    """Whether a piece may be tokenized in this process: without overflow, in bounded time."""
    return len(piece) <= MAX_PIECE_CHARS and not _LONG_NUMBER.search(piece)
