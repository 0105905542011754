"""Drafts where a step may begin before its tokens are accepted: none until one would pay."""

import pytest

from engine_worker.backend.profile import Drafting
from engine_worker.speculation.drafter import DraftRequest
from engine_worker.speculation.per_step import PerStepSpeculator
from engine_worker.speculation.policies import speculator_for
from engine_worker.speculation.quiet_stretches import QUIET_AFTER, QuietStretches
from engine_worker.speculation.speculator import Speculator
from gpufc.ids import RequestNo
from tests.engine_worker.speculation.scripted_drafter import RIGHT, WRONG, ScriptedDrafter, costs

CPU = costs(0.0093, 0.0043)


def grow(speculator: Speculator, tokens: list[int]) -> list[int]:
    """The draft behind these tokens, which gain one `RIGHT`."""
    request = DraftRequest(RequestNo(1), list(tokens), 100, 100)
    (draft,) = speculator.draft_all([request], n_decoding=1)
    tokens.append(RIGHT)
    return draft


def quiet(drafter: ScriptedDrafter) -> QuietStretches:
    return QuietStretches(PerStepSpeculator(drafter, CPU))


def test_it_is_quiet_until_a_draft_would_pay_and_again_after_steps_without() -> None:
    drafter, tokens = ScriptedDrafter(RIGHT), [0]
    speculator = quiet(drafter)
    assert speculator.is_quiet
    while not grow(speculator, tokens):
        assert speculator.is_quiet
    assert not speculator.is_quiet
    drafter.token = WRONG
    while grow(speculator, tokens):
        assert not speculator.is_quiet
    for n_without in range(1, QUIET_AFTER):
        assert not speculator.is_quiet, n_without
        assert not grow(speculator, tokens)
    assert speculator.is_quiet


def test_its_drafts_are_those_of_the_policy_without_quiet_steps() -> None:
    plain_drafter, drafter = ScriptedDrafter(WRONG), ScriptedDrafter(WRONG)
    plain, beside = PerStepSpeculator(plain_drafter, CPU), quiet(drafter)
    tokens: list[int] = [0]
    some_are = set()
    for step in range(200):
        plain_drafter.token = drafter.token = RIGHT if step // 50 % 2 else WRONG
        drafts = [grow(one, list(tokens)) for one in (plain, beside)]
        tokens.append(RIGHT)
        assert drafts[0] == drafts[1]
        some_are.add(bool(drafts[0]))
    assert some_are == {True, False}


def test_steps_of_more_sequences_than_are_drafted_for_make_it_quiet() -> None:
    speculator, tokens = quiet(ScriptedDrafter(RIGHT)), [0]
    while speculator.is_quiet:
        grow(speculator, tokens)
    for _ in range(QUIET_AFTER):
        assert not speculator.is_quiet
        speculator.pause()
    assert speculator.is_quiet


def test_it_is_quiet_when_the_last_sequence_has_ended() -> None:
    speculator, tokens = quiet(ScriptedDrafter(RIGHT)), [0]
    while speculator.is_quiet:
        grow(speculator, tokens)
    speculator.forget(RequestNo(2))
    assert not speculator.is_quiet
    speculator.forget(RequestNo(1))
    assert speculator.is_quiet


@pytest.mark.parametrize(
    ("drafting", "steps_ahead", "position_s", "is_quiet"),
    [
        (Drafting.ANY_LENGTH, True, None, True),
        (Drafting.ANY_LENGTH, False, None, False),
        (Drafting.ANY_LENGTH, True, 0.001, False),  # it would compute beside the step
        (Drafting.ONE_LENGTH, True, None, False),  # it has stretches of its own
    ],
)
def test_where_steps_begin_ahead_a_free_drafter_has_quiet_stretches(
    drafting: Drafting, steps_ahead: bool, position_s: float | None, is_quiet: bool
) -> None:
    drafter = ScriptedDrafter(position_s=position_s)
    made = speculator_for(drafting, drafter, CPU, steps_ahead=steps_ahead)
    assert isinstance(made, QuietStretches) is is_quiet
