"""The table shows an answer that is not llama.cpp's own."""

from collections.abc import Sequence

import pytest

from tests.models.table.judging import (
    Cell,
    Moved,
    Verdict,
    Wanted,
    all_right,
    cell,
    compared,
    repeated,
)
from tests.models.table.shares import Share, Shares

WANTED = Wanted([5, 6, 7, 8], [1.0, 0.5, 0.01, 0.7])


Asked = list[tuple[list[int], int, int]]


def moved_by(far: float, asked: Asked | None = None) -> Moved:
    def moved(tokens: Sequence[int], first: int, second: int) -> float:
        if asked is not None:
            asked.append((list(tokens), first, second))
        return far

    return moved


def told(found: Cell) -> tuple[str, bool]:
    return found.text, found.is_right


@pytest.mark.parametrize("tokens", [[5, 6, 7, 8], [5, 6, 7, 8, 99]])
def test_an_equal_answer_counts_its_tokens(tokens: list[int]) -> None:
    """Also with an end token, which llama.cpp's answer does not have."""
    assert told(cell([compared([1], tokens, WANTED, moved_by(0))] * 2)) == ("✓ 8", True)


def test_a_lead_that_llama_cpp_itself_moves_explains_where_an_answer_parts() -> None:
    asked: Asked = []
    found = compared([1, 2], [5, 6, 9, 8], WANTED, moved_by(0.006, asked))
    assert asked == [([1, 2, 5, 6], 7, 9)]
    assert told(cell([found])) == ("≈ 2; parts after 2: lead 0.01, moved 0.006", True)


@pytest.mark.parametrize("tokens", [[5, 6, 9, 8], [4], [5, 6, 7], [], [5, 6, 7, 8, 9, 9]])
def test_any_other_difference_is_wrong(tokens: list[int]) -> None:
    text, is_right = told(cell([compared([1], tokens, WANTED, moved_by(0.004))]))
    assert text.startswith("WRONG")
    assert not is_right


def test_one_wrong_answer_makes_a_cell_wrong() -> None:
    right = compared([1], [5, 6, 7, 8], WANTED, moved_by(0))
    assert not cell([right, compared([1], [4], WANTED, moved_by(0))]).is_right


def test_answers_of_no_tokens_are_no_evidence() -> None:
    nothing = cell([compared([1], [], Wanted([], []), moved_by(0))])
    assert told(nothing) == told(repeated([], [])) == ("WRONG: no tokens", False)
    assert told(nothing.also("3 cached")) == ("WRONG: no tokens, 3 cached", False)


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ([1, 2], "✓ 2"),
        ([1, 3], "WRONG: parts after 1 of 2"),
        ([1], "WRONG: parts after 1 of 2"),
        ([], "WRONG: parts after 0 of 2"),
    ],
)
def test_a_repeated_answer_is_the_same_to_the_last_token(tokens: list[int], text: str) -> None:
    assert told(repeated(tokens, [1, 2])) == (text, text.startswith("✓"))


@pytest.mark.parametrize(
    ("is_right", "text"), [(True, "✓ 2, 2 replays"), (False, "WRONG: 2, 2 replays")]
)
def test_a_cell_whose_further_figures_are_wrong_says_so(is_right: bool, text: str) -> None:
    found = repeated([1, 2], [1, 2]).also("2 replays", is_right=is_right)
    assert told(found) == (text, is_right)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ([[1], [1]], "✓ 2 streams"),
        ([[1], [2]], "WRONG: parts after 0 of 1"),
        ([], "WRONG: no streams"),
    ],
)
def test_several_streams_are_right_if_each_is(found: list[list[int]], text: str) -> None:
    cells = [repeated(tokens, [1]) for tokens in found]
    assert told(all_right(cells, "streams")) == (text, text.startswith("✓"))


@pytest.mark.parametrize(
    ("again", "question", "turn", "verdicts"),
    [
        (97, 91, 97, [Verdict.RIGHT, Verdict.RIGHT, Verdict.RIGHT]),
        (80, 91, 97, [Verdict.WRONG, Verdict.RIGHT, Verdict.RIGHT]),
        (97, 80, 97, [Verdict.RIGHT, Verdict.WRONG, Verdict.RIGHT]),
        (97, 91, 80, [Verdict.RIGHT, Verdict.RIGHT, Verdict.WRONG]),
    ],
)
def test_a_share_that_is_too_small_is_wrong(
    again: int, question: int, turn: int, verdicts: list[Verdict]
) -> None:
    """A next turn is longer than the turn before it, of which it finds what was computed."""
    questions = Share(95, 100), Share(question, 100)
    found = Shares(Share(again, 100), questions, Share(turn, 120)).cells
    assert [one.verdict for one in found] == verdicts
