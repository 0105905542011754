"""Parsers: the same parts however a text is cut; and the sum of parts."""

import pytest
from hypothesis import given

from gpufc.protocol import FinishReason
from supervisor.answers.parser import PlainText
from supervisor.answers.parts import (
    BEGUN,
    Ended,
    Reasoning,
    Text,
    ToolCallArguments,
    ToolCallBegun,
    joined,
)
from supervisor.answers.whole import ToolCall, WholeAnswer, collected, whole_answer
from tests.supervisor.answers.laws import STOP, check, cut_texts, parts_of
from tests.supervisor.answers.toy import Toy

SAID = "<think>let me</think>I call <call f>{}</call><call g>[1]</call> ok"


@given(cut_texts)
def test_plain_text_is_the_answer_wherever_it_is_cut(pieces: list[str]) -> None:
    check(PlainText, pieces)
    text = "".join(pieces)
    assert joined(parts_of(PlainText, pieces)) == (*([Text(text)] if text else []), Ended(STOP))


@given(cut_texts)
def test_a_parser_with_markers_gives_the_same_parts_wherever_the_text_is_cut(
    pieces: list[str],
) -> None:
    check(Toy, pieces)


def test_one_piece_may_be_several_parts_and_several_pieces_none() -> None:
    assert Toy().feed(SAID) == [
        Reasoning("let me"),
        Text("I call "),
        ToolCallBegun(0, "f"),
        ToolCallArguments(0, "{}"),
        ToolCallBegun(1, "g"),
        ToolCallArguments(1, "[1]"),
        Text(" ok"),
    ]
    parser = Toy()
    assert [parser.feed(piece) for piece in ("<", "th", "ink")] == [[], [], []]


def test_pieces_of_different_calls_are_not_joined() -> None:
    parts = [ToolCallArguments(0, "a"), ToolCallArguments(0, "b"), ToolCallArguments(1, "c")]
    assert joined(parts) == (ToolCallArguments(0, "ab"), ToolCallArguments(1, "c"))
    assert joined([BEGUN, BEGUN]) == (BEGUN, BEGUN)


def test_a_whole_answer_has_all_that_its_parts_have() -> None:
    assert whole_answer([SAID[:9], SAID[9:]], FinishReason.LENGTH, Toy) == WholeAnswer(
        text="I call  ok",
        reasoning="let me",
        calls=(ToolCall("f", "{}"), ToolCall("g", "[1]")),
        ended=Ended(FinishReason.LENGTH, 2),
        parts=(
            Reasoning("let me"),
            Text("I call "),
            ToolCallBegun(0, "f"),
            ToolCallArguments(0, "{}"),
            ToolCallBegun(1, "g"),
            ToolCallArguments(1, "[1]"),
            Text(" ok"),
            Ended(FinishReason.LENGTH, 2),
        ),
    )


def test_parts_without_an_end_are_no_whole_answer() -> None:
    with pytest.raises(ValueError, match="end"):
        collected([BEGUN, Text("a")])
