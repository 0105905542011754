"""On a device drafts are of one length, and neither come nor go with a single step."""

from engine_worker.draft_shape import LENGTH, PATIENCE, WANTED, DraftShape


def lengths(shape: DraftShape, *wanted: bool) -> list[int]:
    return [shape.length(is_worthwhile) for is_worthwhile in wanted]


def test_drafts_begin_when_they_were_worthwhile_in_some_steps_in_succession() -> None:
    shape = DraftShape()
    assert lengths(shape, *[True] * (WANTED - 1), False) == [0] * WANTED
    assert lengths(shape, *[True] * WANTED) == [0] * (WANTED - 1) + [LENGTH]
    assert shape.has_drafts


def test_drafts_end_after_some_steps_without_a_worthwhile_one() -> None:
    shape = DraftShape()
    shape.reset(has_drafts=True)
    assert lengths(shape, *[False] * (PATIENCE - 1), True) == [LENGTH] * PATIENCE
    assert lengths(shape, *[False] * PATIENCE) == [LENGTH] * (PATIENCE - 1) + [0]
    assert not shape.has_drafts
