"""When a mask ahead pays: after choices that were refused often."""

from engine_worker.constraints.refusals import Refusals


def noted(*given: bool) -> Refusals:
    made = Refusals()
    for was_refused in given:
        made.note(was_refused=was_refused)
    return made


def test_refusals_are_frequent_after_several_of_them() -> None:
    assert not noted().are_frequent
    assert not noted(True, True).are_frequent
    assert noted(True, True, True).are_frequent
    assert noted(*(True, False, False) * 20).are_frequent


def test_choices_that_are_allowed_end_it() -> None:
    often = (True,) * 4
    assert noted(*often, False).are_frequent
    assert not noted(*often, *(False,) * 8).are_frequent


def test_one_refusal_in_twenty_is_not_frequent() -> None:
    assert not noted(*((True,) + (False,) * 19) * 9, True).are_frequent
