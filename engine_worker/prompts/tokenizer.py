"""Any text to tokens: exactly as llama.cpp, within its limits, and stopped when it is told to.

llama.cpp's own function takes quadratic time for special tokens and overflows its stack on long
stretches without a break. So special tokens are found here, the rest is given to it in pieces, and
pieces that are not safe go to a process that may die (`apart.py`).
"""

import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from engine_worker.backend.port import Backend
from engine_worker.prompts.least_tokens import LeastTokens
from engine_worker.prompts.pieces import MAX_PIECE_CHARS, Cutter, is_safe
from engine_worker.prompts.special_tokens import SpecialTokenFinder, without_mark

_TYPICAL_TOKEN_BYTES = 4
_WHITESPACE = b" \t\n\v\f\r"
_SHORT_CHARS, _MAX_KNOWN = 32, 1024
"""Texts up to this length between special tokens are tokenized once, however often they come."""


class PrepareCancelled(Exception):
    """The front does not want the answer any more."""


class NeedsApart(Exception):
    """The text has a piece that may end the process: only a process apart may tokenize it."""


class TooManyTokens(Exception):
    """The text has at least `n_tokens`, which is more than was allowed."""

    def __init__(self, n_tokens: int) -> None:
        super().__init__(n_tokens)
        self.n_tokens = n_tokens


class Apart(Protocol):
    """Tokenizes a piece where it does no harm (`apart.TokenizerProcess`)."""

    def tokenize(self, piece: str, cancelled: Callable[[], bool]) -> list[int]: ...


class Tokenizer:
    """Tokenizes for one model, in any thread."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        special = backend.special_tokens()
        self.special = SpecialTokenFinder(special.tokens)
        self.first, self.last, self.between = special.first, special.last, special.between
        self.infill = special.infill
        self._special_ids = frozenset(token.id for token in special.tokens)
        strips = any(token.strips_left or token.strips_right for token in special.tokens)
        self._vanishing = _WHITESPACE if strips else b""
        self._reading = threading.Lock()
        self._read: tuple[Cutter, LeastTokens] | None = None

    def tokenize(
        self,
        text: str,
        *,
        parse_special: bool,
        mark: str = "",
        limit: int | None = None,
        apart: Apart | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[int]:
        """Token ids of a text, without BOS and EOS.

        Control tokens with `mark` in them are text, and the mark is no part of it. Raises
        `TooManyTokens` with more than `limit`, `NeedsApart` where `apart` is missing and
        needed, `PrepareCancelled`, and what `apart` raises.
        """
        if limit is not None:
            self._require_possible(text, limit)
        tokens: list[int] = []
        known: dict[str, list[int]] = {}
        for part in self._parts(text, mark, parse_special=parse_special):
            if isinstance(part, int):
                tokens.append(part)
            elif part in known:
                tokens += known[part]
            else:
                if cancelled():
                    raise PrepareCancelled
                found = self._piece(part, apart, cancelled)
                if len(part) <= _SHORT_CHARS and len(known) < _MAX_KNOWN:
                    known[part] = found
                tokens += found
            if limit is not None and len(tokens) > limit:
                raise TooManyTokens(len(tokens))
        return tokens

    def _require_possible(self, text: str, limit: int) -> None:
        """Refuse by its bytes alone a text that cannot be short enough."""
        if len(text) <= limit * _TYPICAL_TOKEN_BYTES:
            return
        least = self._facts()[1].of(text.encode("utf-8", "replace"))
        if least > limit:
            raise TooManyTokens(least)

    def _parts(self, text: str, mark: str, *, parse_special: bool) -> Iterator[str | int]:
        """Special tokens, and pieces of the texts between them."""
        for part in self.special.split(text, control=parse_special):
            if isinstance(part, int):
                yield part
            elif mark and (plain := without_mark(part, mark)) != part:
                for inner in self.special.split(plain, control=False):
                    yield from (inner,) if isinstance(inner, int) else self._pieces(inner)
            else:
                yield from self._pieces(part)

    def _pieces(self, text: str) -> Iterator[str]:
        if len(text) <= MAX_PIECE_CHARS:
            return iter((text,))
        return self._facts()[0].pieces(text)

    def _piece(self, piece: str, apart: Apart | None, cancelled: Callable[[], bool]) -> list[int]:
        if is_safe(piece) or self._backend.tokenizer_module is None:
            return self._plain(piece)
        if apart is None:
            raise NeedsApart
        return apart.tokenize(piece, cancelled)

    def _plain(self, text: str) -> list[int]:
        return self._backend.tokenize(text, add_special=False, parse_special=False)

    def _facts(self) -> tuple[Cutter, LeastTokens]:
        """What only long texts need. Reading the whole vocabulary takes some ms a 1,000 tokens."""
        with self._reading:
            if self._read is None:
                spelling = self._backend.spelling
                every = [spelling(token) for token in range(self._backend.facts.n_vocab)]
                plain = (
                    spelt for token, spelt in enumerate(every) if token not in self._special_ids
                )
                self._read = Cutter(plain, self._plain), LeastTokens(every, self._vanishing)
            return self._read
