"""Drafts are filled up to few lengths, which do not change with every step."""

from engine_worker.draft_shapes import PATIENCE, DraftShapes


def lengths(shapes: DraftShapes, *drafts: list[int], most: int = 64) -> list[int]:
    levelled = shapes.levelled(drafts, [1000 + at for at in range(len(drafts))], most)
    return [len(draft) for draft in levelled]


def test_nothing_stays_nothing() -> None:
    assert lengths(DraftShapes(), [], []) == [0, 0]
    assert lengths(DraftShapes()) == []


def test_drafts_are_filled_up_to_the_same_length() -> None:
    shapes = DraftShapes()
    assert shapes.levelled([[1, 2], []], [8, 9], 64) == [[1, 2] + [8] * 5, [9] * 7]


def test_a_longer_draft_is_taken_at_once() -> None:
    shapes = DraftShapes()
    assert lengths(shapes, [1] * 3) == [7]
    assert lengths(shapes, [1] * 8) == [31]
    assert lengths(shapes, [1] * 32) == [31]


def test_a_shorter_one_after_some_steps_in_which_no_longer_was_wanted() -> None:
    shapes = DraftShapes()
    lengths(shapes, [1] * 20)
    assert [lengths(shapes, [1])[0] for _ in range(PATIENCE)] == [31] * (PATIENCE - 1) + [7]
    assert [lengths(shapes, [])[0] for _ in range(PATIENCE - 1)] == [7] * (PATIENCE - 1)
    assert lengths(shapes, [1]) == [7], "wanted once more"
    assert [lengths(shapes, [])[0] for _ in range(PATIENCE)] == [7] * (PATIENCE - 1) + [0]


def test_all_together_are_no_more_than_there_is_room_for() -> None:
    shapes = DraftShapes()
    assert lengths(shapes, [1] * 20, [1] * 20) == [31, 31]
    assert lengths(shapes, [1] * 20, [1] * 20, [1], most=63) == [7, 7, 7]
    assert lengths(shapes, [1] * 20, [1] * 20, [1], most=20) == [0, 0, 0]
