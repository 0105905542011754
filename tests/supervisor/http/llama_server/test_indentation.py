"""`n_indent` ends an answer in the first line that is indented less, however its text comes."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufc.protocol import FinishReason
from supervisor.answers.parts import Ended, Text, joined
from supervisor.http.llama_server.indentation import IndentedText, reading_of
from tests.supervisor.answers.laws import check, cut, parts_of

texts = st.lists(st.sampled_from(["a", "bc", " ", "  ", "\t", "\n", "\n  "]), max_size=30)
cut_texts = texts.map("".join).flatmap(cut)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a\n  b\n  c", "a\n  b\n  c"),
        ("a\n  b\n c", "a\n  b\n "),
        ("a\nb", "a\n"),
        ("a\n\n  b", "a\n"),
        ("a\n\t\tb", "a\n\t\tb"),
        ("a\n ", "a\n "),
        ("\n  a", "\n  a"),
        ("", ""),
    ],
)
def test_a_line_with_too_few_blanks_ends_the_answer(text: str, kept: str) -> None:
    *parts, ended = parts_of(partial(IndentedText, 2), [text])
    assert parts == ([Text(kept)] if kept else [])
    is_whole = kept == text
    assert ended == Ended(FinishReason.STOP if is_whole else FinishReason.LENGTH)


@given(cut_texts)
def test_it_does_not_matter_how_the_text_was_cut(pieces: list[str]) -> None:
    check(partial(IndentedText, 2), pieces)


def test_without_a_number_all_text_is_the_answer() -> None:
    for nothing in (None, 0):
        assert joined(parts_of(reading_of(nothing)("").new_parser, ["a\nb"]))[0] == Text("a\nb")
