"""The tokens that end a repetition for DRY: those that spell one of a request's breakers.

A breaker may be a part of a token, a token, or begin in one token and go on in others. To find them
means to look through the vocabulary, which takes much longer than a step. So it is done once for
each text, and by another thread than the engine's (`constraints.gate`).
"""

from collections.abc import Iterable
from typing import Protocol

from gpufc.protocol import Generate

MAX_BREAKER_BYTES = 40
"""llama.cpp's: the rest of a longer text is passed over."""

MAX_TAIL = 20
"""llama.cpp's limit of a breaker's tokens after the first one."""

MAX_KEPT = 256
"""Texts whose tokens are kept."""

Tails = dict[int, tuple[tuple[int, ...], ...]]
"""The tokens that a breaker may begin in, each with the tokens that may follow it, in order. An
empty tail: the token by itself is a breaker."""


class Vocabulary(Protocol):
    """The part of a backend that spells tokens. Called from several threads."""

    def spelling(self, token: int) -> bytes: ...
    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]: ...


class BreakerStore:
    """The tails of breakers that were looked for. Thread-safe; a race looks for one twice."""

    def __init__(self, vocabulary: Vocabulary, n_vocab: int) -> None:
        self._vocabulary = vocabulary
        self._n_vocab = n_vocab
        self._words: list[bytes] = []
        self._found: dict[str, Tails] = {}

    def is_ready(self, spec: Generate) -> bool:
        """Whether a sequence's breakers are known, or it has none."""
        return not uses_dry(spec) or all(
            text in self._found for text in spec.sampling.dry_sequence_breakers
        )

    def make_ready(self, spec: Generate) -> None:
        """Look for a sequence's breakers. Implements `constraints.gate.Preparation`."""
        if uses_dry(spec):
            self.tails(spec.sampling.dry_sequence_breakers)

    def tails(self, breakers: Iterable[str]) -> Tails:
        """The tails of all breakers together."""
        joined: dict[int, set[tuple[int, ...]]] = {}
        for text in breakers:
            for token, tails in self._tails_of(text).items():
                joined.setdefault(token, set()).update(tails)
        return {token: tuple(sorted(tails, key=len)) for token, tails in joined.items()}

    def _tails_of(self, text: str) -> Tails:
        found = self._found.get(text)
        if found is None:
            found = self._look_for(text.encode("utf-8", "replace")[:MAX_BREAKER_BYTES])
            # a copy, because the other thread may add or drop texts meanwhile
            for oldest in list(self._found)[: 1 - MAX_KEPT]:
                self._found.pop(oldest, None)
            self._found[text] = found
        return found

    def _look_for(self, text: bytes) -> Tails:
        if not text:
            return {}
        if not self._words:
            self._words = [self._vocabulary.spelling(token) for token in range(self._n_vocab)]
        first = text[:1]
        return {
            token: tails
            for token, word in enumerate(self._words)
            if first in word and (tails := self._tails_in(word, text))
        }

    def _tails_in(self, word: bytes, text: bytes) -> tuple[tuple[int, ...], ...]:
        if text in word:
            return ((),)
        begun = (word[at:] for at in range(len(word)) if text.startswith(word[at:]))
        return tuple({self._tail(text[len(part) :]) for part in begun})

    def _tail(self, rest: bytes) -> tuple[int, ...]:
        # a rest that begins inside a character becomes tokens that no model generates
        text = rest.decode("utf-8", "replace")
        tokens = self._vocabulary.tokenize(text, add_special=False, parse_special=False)
        return tuple(tokens[:MAX_TAIL])


def uses_dry(spec: Generate) -> bool:
    """Whether a sequence's parameters switch DRY on."""
    wanted = spec.sampling
    return wanted.dry_multiplier > 0.0 and wanted.dry_penalty_last_n != 0 and not wanted.mirostat
