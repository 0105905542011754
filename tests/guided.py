"""Random answers of a format: walks through the masks of a small vocabulary."""

import random
from collections.abc import Iterable, Sequence

import numpy as np

from engine_worker.constraints import llg
from engine_worker.constraints.grammar import grammar_of
from gpufc.answer_format import AnswerFormat, constraint_of

END = 256
FIRST_WORD = 257
MAX_TOKENS = 800


class Vocabulary:
    """Bytes, an end token, words, and control tokens, which have no text in an answer."""

    end_tokens = frozenset({END})

    def __init__(self, words: Iterable[str], control: Sequence[str]) -> None:
        self.words = [word.encode() for word in words]
        self.control = {FIRST_WORD + len(self.words) + i: text for i, text in enumerate(control)}
        self.n_vocab = FIRST_WORD + len(self.words) + len(control)

    def writable(self, token: int) -> bytes:
        if token < END:
            return bytes((token,))
        is_word = FIRST_WORD <= token < FIRST_WORD + len(self.words)
        return self.words[token - FIRST_WORD] if is_word else b""

    def written(self, text: str) -> list[int]:
        return list(text.encode())

    def tokens(self, text: str) -> list[int]:
        """Control tokens where they are spelt, bytes elsewhere."""
        for token, control in self.control.items():
            before, found, after = text.partition(control)
            if found:
                return [*self.tokens(before), token, *self.tokens(after)]
        return self.written(text)

    def spelt(self, token: int) -> bytes:
        return self.control[token].encode() if token in self.control else self.writable(token)


class Walker:
    """Writes random answers of one format."""

    def __init__(
        self,
        answer: AnswerFormat,
        words: Iterable[str],
        control: Sequence[str] = (),
        ends: float = 0.1,
    ) -> None:
        """`ends`: how often an answer ends where it may."""
        self.ends = ends
        self.vocabulary = Vocabulary(words, control)
        lark = grammar_of(constraint_of(answer, "tools"), control)
        grammar = llg.with_tokens(lark, list(self.vocabulary.control))
        tokenizer = llg.Tokenizer(self.vocabulary, self.vocabulary.n_vocab)
        self.matcher = llg.Matcher(tokenizer, grammar)

    def text(self, seed: int, start: str = "") -> str | None:
        """One answer, ended by an end token or because nothing may follow. None if it has not
        ended after `MAX_TOKENS`."""
        choice = random.Random(seed)
        matcher = self.matcher.copy()
        first = self.vocabulary.tokens(start)
        assert matcher.consume(first) == len(first)
        written = start.encode()
        for _ in range(MAX_TOKENS):
            if matcher.is_complete:
                return written.decode()
            token = self._next(matcher, choice)
            if token == END:
                return written.decode()
            assert matcher.consume((token,)), (written, token)
            written += self.vocabulary.spelt(token)
        return None

    def texts(self, n: int, start: str = "") -> list[str]:
        """Those of `n` random answers that have an end: at least one."""
        found = [text for seed in range(n) if (text := self.text(seed, start)) is not None]
        assert found
        return found

    def allows(self, text: str) -> bool:
        """Whether this text is an answer."""
        matcher = self.matcher.copy()
        data = self.vocabulary.tokens(text)
        return matcher.consume(data) == len(data) and matcher.is_accepting

    def _next(self, matcher: llg.Matcher, choice: random.Random) -> int:
        words = matcher.mask()
        assert not matcher.error, matcher.error
        allowed = np.unpackbits(words.view(np.uint8), bitorder="little").nonzero()[0].tolist()
        assert allowed, "the grammar is stuck"
        long = [token for token in allowed if token > END]
        control = [token for token in long if token in self.vocabulary.control]
        if END in allowed and choice.random() < self.ends:
            return END
        if control and choice.random() < 0.3:
            return choice.choice(control)
        if long and choice.random() < 0.6:
            return choice.choice(long)
        usual = [token for token in allowed if token < END and 32 <= token < 127]
        return choice.choice(usual or allowed)
