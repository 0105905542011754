"""The table shows an answer that is not llama.cpp's own."""

from collections.abc import Sequence

import pytest

from tests.models.table.judging import Moved, Wanted, cell, compared, repeated

WANTED = Wanted([5, 6, 7, 8], [1.0, 0.5, 0.01, 0.7])


Asked = list[tuple[list[int], int, int]]


def moved_by(far: float, asked: Asked | None = None) -> Moved:
    def moved(tokens: Sequence[int], first: int, second: int) -> float:
        if asked is not None:
            asked.append((list(tokens), first, second))
        return far

    return moved


@pytest.mark.parametrize("tokens", [[5, 6, 7, 8], [5, 6, 7, 8, 99]])
def test_an_equal_answer_counts_its_tokens(tokens: list[int]) -> None:
    """Also with an end token, which llama.cpp's answer does not have."""
    assert cell([compared([1], tokens, WANTED, moved_by(0))] * 2) == ("✓ 8", True)


def test_a_lead_that_llama_cpp_itself_moves_explains_where_an_answer_parts() -> None:
    asked: Asked = []
    found = compared([1, 2], [5, 6, 9, 8], WANTED, moved_by(0.006, asked))
    assert asked == [([1, 2, 5, 6], 7, 9)]
    text, is_right = cell([found])
    assert (text, is_right) == ("≈ 2; parts after 2: lead 0.01, moved 0.006", True)


@pytest.mark.parametrize("tokens", [[5, 6, 9, 8], [4], [5, 6, 7], [], [5, 6, 7, 8, 9, 9]])
def test_any_other_difference_is_wrong(tokens: list[int]) -> None:
    text, is_right = cell([compared([1], tokens, WANTED, moved_by(0.004))])
    assert text.startswith("WRONG")
    assert not is_right


def test_one_wrong_answer_makes_a_cell_wrong() -> None:
    right = compared([1], [5, 6, 7, 8], WANTED, moved_by(0))
    assert not cell([right, compared([1], [4], WANTED, moved_by(0))]).is_right


def test_answers_of_no_tokens_are_no_evidence() -> None:
    assert not cell([compared([1], [], Wanted([], []), moved_by(0))]).is_right


@pytest.mark.parametrize(
    ("tokens", "text"),
    [([1, 2], "✓ 2"), ([1, 3], "WRONG: parts after 1 of 2"), ([1], "WRONG: parts after 1 of 2")],
)
def test_a_repeated_answer_is_the_same_to_the_last_token(tokens: list[int], text: str) -> None:
    assert repeated(tokens, [1, 2]) == (text, text.startswith("✓"))
