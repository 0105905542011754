"""Tokens of pieces against tokens of the whole, for llama.cpp's pre-tokenizers."""

import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine_worker.backend.llama.vocabulary import Vocabulary
from engine_worker.prompts import pieces
from engine_worker.prompts.pieces import MAX_DIGITS, MAX_PIECE_CHARS, Cutter, is_safe
from engine_worker.prompts.special_tokens import WINDOW_CHARS
from tests.engine_worker.prompts.vocabularies import (
    ALL,
    LARGE,
    load_vocabulary,
    write_vocabulary,
)

pytestmark = pytest.mark.model

WORDS = [
    "the",
    "quick",
    "Brown",
    "FOX",
    "it's",
    "we'll",
    "JUMPED",
    "over42",
    "1,234.5",
    "x=f(y);",
    "//",
    "->",
    "été",
    "naïve",
    "'''",
    '"q"',
    "##",
    "__x__",
    "中文文本",
    "你好世界",
    "日本語です",
    "АБВ",
    "שלום",
    "á",
    "🙂🚀",
]
GAPS = (" ", " ", " ", "\n", "\n\n", "  ", "\t", " \n ", "\r\n", "\uff0c", "\u3002", "\u3002\n", "")


def mixed_text(seed: int, n_words: int) -> str:
    rng = random.Random(seed)
    return "".join(rng.choice(WORDS) + rng.choice(GAPS) for _ in range(n_words))


@pytest.fixture
def open_vocabulary(model_path: Path, tmp_path: Path) -> Callable[[str], Vocabulary]:
    return lambda pre: load_vocabulary(
        write_vocabulary(model_path, tmp_path / f"{pre}.gguf", pre=pre)
    )


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many cuts in a text that is soon tokenized as a whole."""
    monkeypatch.setattr(pieces, "PIECE_CHARS", 20)
    monkeypatch.setattr(pieces, "MAX_PIECE_CHARS", 60)


def plain(vocabulary: Vocabulary) -> Callable[[str], list[int]]:
    return lambda text: vocabulary.tokenize(text, add_special=False, parse_special=False)


def spellings(vocabulary: Vocabulary) -> Iterator[bytes]:
    special = {token.id for token in vocabulary.special_tokens().tokens}
    return (
        vocabulary.spelling(token) for token in range(vocabulary.n_tokens) if token not in special
    )


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    "pre", [pytest.param(pre, marks=[] if pre in LARGE else pytest.mark.slow) for pre in ALL]
)
def test_pieces_have_the_tokens_of_the_whole(
    open_vocabulary: Callable[[str], Vocabulary], pre: str
) -> None:
    vocabulary = open_vocabulary(pre)
    tokenize = plain(vocabulary)
    cutter = Cutter(spellings(vocabulary), tokenize)
    for seed in range(12):
        text = mixed_text(seed, 300)
        cut = list(cutter.pieces(text))
        assert "".join(cut) == text
        assert len(cut) > 10
        assert [token for piece in cut for token in tokenize(piece)] == tokenize(text)


def test_a_tokenizer_that_puts_a_space_before_every_text_loses_one_at_each_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pieces, "PIECE_CHARS", 4)
    monkeypatch.setattr(pieces, "MAX_PIECE_CHARS", 12)

    def tokenize(text: str) -> list[int]:
        return list(f" {text}".encode())

    text = "some words here,\nand  more of them "
    cut = list(Cutter([b"so", b"me"], tokenize).pieces(text))
    assert len(cut) > 2
    assert [token for piece in cut for token in tokenize(piece)] == tokenize(text)


@pytest.mark.parametrize("spelling", [b"of the", b"a b"])
def test_words_are_not_cut_where_a_token_spans_them(spelling: bytes) -> None:
    cutter = Cutter([b"x", spelling], lambda text: list(text.encode()))
    text = "word " * (2 * MAX_PIECE_CHARS)
    assert list(cutter.pieces(text)) == [text]


def test_a_stretch_without_breaks_is_one_piece_and_what_follows_is_not() -> None:
    cutter = Cutter([b"x"], lambda text: list(text.encode()))
    stretch, words = "x" * (3 * MAX_PIECE_CHARS), " word" * MAX_PIECE_CHARS
    first, *others = cutter.pieces(stretch + words)
    assert first == stretch
    assert all(map(is_safe, others))
    assert not is_safe(first)


def test_many_digits_in_a_row_are_not_safe() -> None:
    assert is_safe("1" * MAX_DIGITS + "x" + "1" * MAX_DIGITS)
    assert not is_safe("x" + "1" * (MAX_DIGITS + 1))


class Watched:
    """A pattern that notes how far each search may look."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self.looks: list[int] = []

    def search(self, text: str, start: int, end: int = sys.maxsize) -> re.Match[str] | None:
        self.looks.append(min(end, len(text)) - start)
        return self._pattern.search(text, start, end)

    def finditer(self, text: str, start: int, end: int) -> Iterator[re.Match[str]]:
        self.looks.append(end - start)
        return self._pattern.finditer(text, start, end)


@pytest.mark.parametrize("run", [MAX_PIECE_CHARS, WINDOW_CHARS - 2, 3 * WINDOW_CHARS + 5])
def test_no_search_for_a_cut_keeps_other_threads_from_running(run: int) -> None:
    cutter = Cutter([b"a"], lambda text: list(text.encode()))
    watched = Watched(cutter._pattern)
    cutter._pattern = watched
    for at in range(WINDOW_CHARS - 3, WINDOW_CHARS + 4):  # also where two windows meet
        text = "a" * (run + at) + " " + "b" * 20_000
        assert next(cutter.pieces(text)) == "a" * (run + at)
    assert list(cutter.pieces("a" * (run + WINDOW_CHARS))) == ["a" * (run + WINDOW_CHARS)]
    assert max(watched.looks) <= WINDOW_CHARS + 1
