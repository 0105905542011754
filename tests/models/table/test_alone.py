"""The move that llama.cpp alone makes of a lead is that of the two tokens asked for."""

from collections.abc import Iterator
from contextlib import closing
from itertools import permutations

import pytest

from tests.models.making import made
from tests.models.runs import N_CTX, some_tokens
from tests.models.table.alone import Alone

TOKENS = some_tokens(90, 1)
SOME = (40, 77, 110)
"""Tokens whose leads over each other are looked at."""


@pytest.fixture(scope="module")
def alone() -> Iterator[Alone]:
    opened = Alone(made("llama"), N_CTX, passes=(128, 33))
    yield opened
    opened.close()


def test_a_token_has_no_lead_over_itself_to_move(alone: Alone) -> None:
    assert [alone.moved(TOKENS, token, token) for token in SOME] == [0.0] * len(SOME)


def test_a_lead_moves_as_far_as_its_opposite(alone: Alone) -> None:
    for first, second in permutations(SOME, 2):
        assert alone.moved(TOKENS, first, second) == alone.moved(TOKENS, second, first) > 0


def test_a_short_prompt_s_lead_moves_beside_another_sequence(alone: Alone) -> None:
    """By itself it has too few rows for llama.cpp's kernels for many."""
    with closing(Alone(made("llama"), N_CTX, beside=())) as by_itself:
        found = [one.moved(TOKENS[:9], *SOME[:2]) for one in (by_itself, alone)]
    assert found[0] < found[1]
