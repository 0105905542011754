"""Places and turns of embeddings are shared among owners."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpufc.errors import Overloaded
from gpufc.ids import RequestNo
from supervisor.dispatch.embedding_turns import (
    MAX_REQUESTS,
    OPEN_SIZE,
    RESERVE,
    EmbeddingTurns,
)

HALF = OPEN_SIZE // 2


def test_an_owner_that_fills_all_places_keeps_no_other_one_out() -> None:
    turns = EmbeddingTurns()
    for _ in range(MAX_REQUESTS):
        turns.require_room("greedy")
        turns.enter("greedy")
    with pytest.raises(Overloaded):
        turns.require_room("greedy")
    for _ in range(RESERVE):
        turns.require_room("modest")
        turns.enter("modest")
    with pytest.raises(Overloaded):
        turns.require_room("third")
    turns.leave("greedy")
    turns.require_room("third")
    with pytest.raises(Overloaded):
        turns.require_room("greedy")


def test_the_next_piece_is_that_of_the_owner_with_the_fewest_open_ones() -> None:
    turns, begun = EmbeddingTurns(), list[int]()
    for no in range(1, 6):
        turns.wait(RequestNo(no), "greedy", HALF, partial(begun.append, no))
    turns.wait(RequestNo(6), "modest", HALF, partial(begun.append, 6))
    assert begun == [1, 2]
    turns.ended(RequestNo(1))
    assert begun == [1, 2, 6]
    turns.ended(RequestNo(4))
    turns.ended(RequestNo(6))
    turns.ended(RequestNo(2))
    assert begun == [1, 2, 6, 3, 5]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2 * OPEN_SIZE)), max_size=40))
def test_every_piece_has_one_turn_and_large_ones_are_open_alone(
    pieces: list[tuple[str, int]],
) -> None:
    turns, begun = EmbeddingTurns(), list[int]()
    for no, (owner, size) in enumerate(pieces):
        turns.wait(RequestNo(no), owner, size, partial(begun.append, no))
    n_ended = 0
    while n_ended < len(begun):
        is_open = [pieces[no][1] for no in begun[n_ended:]]
        assert len(is_open) == 1 or sum(is_open) <= OPEN_SIZE
        turns.ended(RequestNo(begun[n_ended]))
        n_ended += 1
    assert sorted(begun) == list(range(len(pieces)))
