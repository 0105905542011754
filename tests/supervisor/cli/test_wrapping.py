"""Wrapping a stream: the same lines however it is cut into pieces."""

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.cli.wrapping import Wrapper

TEXT = "The quick brown fox jumps over the lazy dog, again and again and again."


def wrapped(text: str, width: int, size: int = 1) -> str:
    wrapper = Wrapper(width)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    return "".join(map(wrapper.feed, pieces)) + wrapper.flush()


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize("width", [10, 17, 40, 200])
def test_lines_break_between_words(width: int, size: int) -> None:
    lines = [line.rstrip() for line in wrapped(TEXT, width, size).split("\n")]
    assert lines == textwrap.wrap(TEXT, width)


def test_lines_of_the_text_and_their_indentation_stay() -> None:
    code = "def f():\n    return 1\n\n\n"
    assert wrapped(code, 40) == code


def test_scripts_without_spaces_break_anywhere() -> None:
    assert wrapped("\u4f60\u597d\u4e16\u754c", 5) == "\u4f60\u597d\n\u4e16\u754c"


def test_a_word_is_printed_as_soon_as_it_is_whole() -> None:
    wrapper = Wrapper(20)
    assert [wrapper.feed(piece) for piece in ("Hel", "lo", " wor", "ld")] == ["", "", "Hello ", ""]
    assert wrapper.flush() == "world"


@given(st.text(alphabet="ab \n\u4f60", max_size=60), st.integers(2, 12), st.integers(1, 5))
def test_nothing_is_lost_and_no_line_is_too_long(text: str, width: int, size: int) -> None:
    shown = wrapped(text, width, size)
    assert shown.replace("\n", "").replace(" ", "") == text.replace("\n", "").replace(" ", "")
    cells = [sum(2 if letter == "\u4f60" else 1 for letter in line) for line in shown.split("\n")]
    assert max(cells) <= width
