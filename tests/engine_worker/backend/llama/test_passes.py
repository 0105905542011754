"""Prompts are computed apart where that takes no more passes, or their cells are worth one."""

import pytest

from engine_worker.backend.llama.passes import FAR, computes_apart
from engine_worker.backend.port import Batch


def batch(decoding: tuple[int, ...], chunks: dict[int, int]) -> Batch:
    """Sequences that decode at position 99, and chunks of two tokens that end at a position."""
    made = Batch([], [], [], [], set(chunks))
    for sequence in sorted({*decoding, *chunks}):
        ends = chunks.get(sequence, 99)
        for position in (ends - 1, ends) if sequence in chunks else (ends,):
            made.tokens.append(7)
            made.positions.append(position)
            made.sequences.append(sequence)
            made.outputs.append(True)
    return made


def test_nothing_is_apart_without_prompts() -> None:
    assert not computes_apart(batch((0, 1, 2), {}))


@pytest.mark.parametrize("place", [0, 4])
def test_a_prompt_at_the_end_is_apart(place: int) -> None:
    assert computes_apart(batch((1, 2, 3), {place: 50}))


def test_a_prompt_in_a_gap_is_not() -> None:
    assert not computes_apart(batch((0, 1, 3), {2: 50}))


def test_a_prompt_in_a_gap_is_once_it_has_many_more_cells() -> None:
    assert not computes_apart(batch((0, 1, 3), {2: 98 + FAR}))
    assert computes_apart(batch((0, 1, 3), {2: 99 + FAR}))


def test_gaps_that_are_there_anyway_do_not_count() -> None:
    assert computes_apart(batch((0, 2), {5: 50}))
