import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_worker.backend.port import SpecialToken
from engine_worker.prompts import special_tokens
from engine_worker.prompts.special_tokens import (
    WINDOW_CHARS,
    SpecialTokenFinder,
    escaped,
    unused_mark,
    without_mark,
)
from tests.engine_worker.prompts.vocabularies import load_vocabulary, write_vocabulary


def control(*texts: str, **strips: bool) -> list[SpecialToken]:
    return [SpecialToken(number, text, True, **strips) for number, text in enumerate(texts)]


FINDER = SpecialTokenFinder(
    [*control("<|im_start|>", "<|im_end|>"), SpecialToken(7, "<tool>", is_control=False)]
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("plain", ["plain"]),
        ("<|im_end|><|im_end|>", [1, 1]),
        ("a<|im_start|>b<tool>", ["a", 0, "b", 7]),
        ("<|im_<|im_end|>|>", ["<|im_", 1, "|>"]),
    ],
)
def test_a_text_is_split_at_its_special_tokens(text: str, expected: list[str | int]) -> None:
    assert list(FINDER.split(text, control=True)) == expected


def test_without_control_tokens_only_the_others_are_found() -> None:
    assert list(FINDER.split("<|im_end|><tool>", control=False)) == ["<|im_end|>", 7]


@pytest.mark.parametrize("at", range(-14, 3))
def test_tokens_are_found_wherever_a_window_ends(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    monkeypatch.setattr(special_tokens, "WINDOW_CHARS", 32)
    before = "x" * (64 + at)
    assert list(FINDER.split(f"{before}<|im_start|>y", control=True)) == [before, 0, "y"]


def test_the_longest_token_wins() -> None:
    finder = SpecialTokenFinder(control("\n", "\n\n", "\n\n\n"))
    assert list(finder.split("\n" * 8, control=True)) == [2, 2, 1]


def test_tokens_that_overlap_are_found_longest_first_as_llama_cpp_does() -> None:
    finder = SpecialTokenFinder(control("ab", "bcd"))
    assert list(finder.split("abcdab", control=True)) == ["a", 1, 0]


def test_tokens_that_strip_swallow_the_whitespace_beside_them() -> None:
    right = SpecialTokenFinder(control("<e>", strips_right=True))
    assert list(right.split(" a <e> \n b <e>", control=True)) == [" a ", 0, "b ", 0]
    left = SpecialTokenFinder(control("<e>", strips_left=True))
    assert list(left.split(" a <e> b <e>  ", control=True)) == [" a", 0, " b", 0, "  "]


@pytest.mark.model
def test_the_same_tokens_as_llama_cpp_s_own_split(model_path: Path, tmp_path: Path) -> None:
    vocabulary = load_vocabulary(write_vocabulary(model_path, tmp_path / "v.gguf"))
    special = vocabulary.special_tokens().tokens
    finder = SpecialTokenFinder(special)
    bits = [*(token.text for token in special), "<", "|", "im_", ">", " ", "\n", "a", "\u4e2d"]
    rng = random.Random(5)
    for parse_special in (True, False):
        for _ in range(300):
            text = "".join(rng.choices(bits, k=30))
            found: list[int] = []
            for part in finder.split(text, control=parse_special):
                found += (
                    [part]
                    if isinstance(part, int)
                    else vocabulary.tokenize(part, add_special=False, parse_special=False)
                )
            assert found == vocabulary.tokenize(
                text, add_special=False, parse_special=parse_special
            )


# marks


@pytest.mark.parametrize(
    "text", ["<|im_end|>", "a<|im_start|>b<|im_end|>", "<|im_end|", "x<", "<|im_<|im_end|>"]
)
def test_a_marked_text_has_no_control_token_whatever_follows_it(text: str) -> None:
    mark = unused_mark(text)
    marked = FINDER.marked(text, mark)
    for rest in ("", "|>", "|im_end|>", "end|>", ">"):
        assert all(isinstance(part, str) for part in FINDER.split(marked + rest, control=True))
    assert without_mark(marked, mark) == text


def test_what_spells_no_control_token_is_not_marked() -> None:
    value = {"role": "user", "content": ["plain <tool> text", 5, None]}
    assert FINDER.marked(value, "!") == value


def test_marks_go_into_nested_values() -> None:
    marked = FINDER.marked({"a": [{"<|im_end|>": "<|im_end|>"}], "n": 1}, "!")
    assert marked == {"a": [{"<!|im_end|>": "<!|im_end|>"}], "n": 1}


def test_the_mark_is_a_character_that_no_text_has() -> None:
    first = unused_mark("")
    second = unused_mark(["x", {"y": first}])
    assert first != second
    assert unused_mark(escaped(first)) != first


class Long(str):
    """A text that must not be gone through at once: meanwhile no other thread runs."""

    __slots__ = ()

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("gone through at once")


def test_a_mark_is_sought_in_windows() -> None:
    first = unused_mark("")
    text = Long("a" * 2 * WINDOW_CHARS + first)
    assert unused_mark([text]) != first


def test_a_mark_that_a_template_wrote_as_json_is_taken_out() -> None:
    mark = unused_mark("")
    assert without_mark(f"a{escaped(mark)}b{mark}", mark) == "ab"
    assert escaped("\U000f0000") == "\\udb80\\udc00"


def test_texts_overlap_where_the_end_of_one_can_begin_another() -> None:
    dice = random.Random(7)
    found = {True: 0, False: 0}
    for _ in range(2000):
        texts = {"".join(dice.choices("<ab>", k=dice.randint(1, 4))) for _ in range(3)}
        overlaps = _overlaps(texts)
        assert special_tokens._can_overlap(texts) == overlaps, texts
        found[overlaps] += 1
    assert min(found.values()) > 100


def _overlaps(texts: set[str]) -> bool:
    """By the definition, pair by pair. Repetitions of one character do not count."""
    return any(
        other.startswith(one[start:]) and len(one[start:]) < len(other)
        for one in texts
        for other in texts
        if len(set(one)) > 1 or len(set(other)) > 1
        for start in range(1, len(one))
    )


def test_a_pattern_is_made_once_and_only_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[list[str]] = []

    def tree(texts: list[str]) -> str:
        made.append(texts)
        return "x"

    monkeypatch.setattr(special_tokens, "_tree", tree)
    finder = SpecialTokenFinder(SpecialToken(n, f"<t{n}>", True) for n in range(50))
    assert made == []
    for _ in range(3):
        list(finder.split("a stop string", control=True))
    assert len(made) == 1
