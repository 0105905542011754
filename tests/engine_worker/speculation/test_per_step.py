"""Drafts are verified where they pay, by the costs of steps and their acceptance rates."""

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.speculation.draft_lengths import LEAST_GAIN, MAX_DRAFT, MAX_DRAFTED
from engine_worker.speculation.drafter import DraftRequest
from engine_worker.speculation.per_step import PerStepSpeculator
from gpufc.ids import RequestNo
from tests.engine_worker.speculation.scripted_drafter import RIGHT, WRONG, ScriptedDrafter, costs

CPU, GPU = costs(0.0093, 0.0043), costs(0.002, 0.00002)


def lengths(
    speculator: PerStepSpeculator,
    sequences: list[list[int]],
    limit: int = 100,
    n_decoding: int = 0,
    n_useful: int = 100,
) -> list[int]:
    requests = [
        DraftRequest(RequestNo(number), tokens, limit, n_useful)
        for number, tokens in enumerate(sequences)
    ]
    drafts = speculator.draft_all(requests, n_decoding=n_decoding or len(requests))
    return [len(draft) for draft in drafts]


def after(n_steps: int, speculator: PerStepSpeculator, n_sequences: int = 1) -> list[int]:
    """The lengths of the drafts after `n_steps` in which each sequence gained one `RIGHT`."""
    sequences = [[0] for _ in range(n_sequences)]
    for _ in range(n_steps):
        lengths(speculator, sequences)
        for tokens in sequences:
            tokens.append(RIGHT)
    return lengths(speculator, sequences)


def test_nothing_is_drafted_while_costs_are_unknown() -> None:
    assert after(3, PerStepSpeculator(ScriptedDrafter(), StepCosts())) == [0]


@pytest.mark.parametrize("costs", [CPU, GPU])
def test_drafts_that_are_always_right_are_verified_at_full_length(costs: StepCosts) -> None:
    assert after(200, PerStepSpeculator(ScriptedDrafter(), costs)) == [MAX_DRAFT]


@pytest.mark.parametrize("costs", [CPU, GPU])
def test_drafts_that_are_never_right_are_not_verified(costs: StepCosts) -> None:
    assert after(200, PerStepSpeculator(ScriptedDrafter(WRONG), costs)) == [0]


@pytest.mark.parametrize(("token", "assumed", "pays"), [(WRONG, 0.9, False), (RIGHT, 0.1, True)])
def test_a_new_sequence_begins_with_what_others_have_shown(
    token: int, assumed: float, pays: bool
) -> None:
    speculator = PerStepSpeculator(ScriptedDrafter(token, assumed), CPU)
    assert (after(0, speculator) == [0]) == pays
    after(100, speculator)
    new = DraftRequest(RequestNo(99), [0], 100, 100)
    (draft,) = speculator.draft_all([new], n_decoding=1)
    assert bool(draft) == pays


def test_a_costly_drafter_begins_anew_with_each_sequence() -> None:
    speculator = PerStepSpeculator(ScriptedDrafter(WRONG, 0.9, position_s=0.0001), CPU)
    first = after(0, speculator)
    after(100, speculator)
    (draft,) = speculator.draft_all([DraftRequest(RequestNo(99), [0], 100, 100)], n_decoding=1)
    assert [len(draft)] == first


def test_a_doubtful_draft_pays_where_a_further_token_costs_little() -> None:
    assert after(0, PerStepSpeculator(ScriptedDrafter(assumed=0.3), CPU)) == [0]
    (length,) = after(0, PerStepSpeculator(ScriptedDrafter(assumed=0.3), GPU))
    assert 1 <= length < 8


def test_text_that_turns_repetitive_is_noticed_without_verified_drafts() -> None:
    drafter = ScriptedDrafter(WRONG)
    speculator, tokens = PerStepSpeculator(drafter, CPU), [0]
    for _ in range(300):
        assert lengths(speculator, [tokens])[0] <= 1
        tokens.append(RIGHT)
    drafter.token = RIGHT
    for _ in range(150):
        lengths(speculator, [tokens])
        tokens.append(RIGHT)
    assert lengths(speculator, [tokens])[0] > 8


def test_a_draft_is_no_longer_than_its_limit() -> None:
    speculator = PerStepSpeculator(ScriptedDrafter(assumed=0.99), GPU)
    assert lengths(speculator, [[0]], limit=3) == [3]
    assert lengths(speculator, [[0, 1]], limit=0) == [0]


@pytest.mark.parametrize("position_s", [None, 0.00001])
def test_a_draft_ends_where_the_answer_must_end(position_s: float | None) -> None:
    drafter = ScriptedDrafter(assumed=0.99, evidence=0, position_s=position_s)
    speculator = PerStepSpeculator(drafter, GPU)
    assert lengths(speculator, [[0]], n_useful=3) == [3]
    assert lengths(speculator, [[0, 1]], n_useful=0) == [0]


def test_only_tokens_at_the_positions_of_the_draft_are_compared() -> None:
    """Of four drafted tokens the sequence gains two, then another token."""
    drafter = ScriptedDrafter(assumed=0.9)
    speculator = PerStepSpeculator(drafter, GPU)
    tokens = [0]
    for _ in range(100):
        lengths(speculator, [tokens], limit=4)
        tokens += [RIGHT, RIGHT, WRONG]
    (track,) = speculator._tracks.values()
    assert track.rates.rate(50) == pytest.approx(2 / 3, abs=0.05)


def test_a_copying_sequence_does_not_slow_the_other_ones() -> None:
    """A step of eight streams takes 40 ms; 32 drafted tokens add 140 ms to it."""
    speculator = PerStepSpeculator(ScriptedDrafter(assumed=0.99), CPU)
    (alone,) = lengths(speculator, [[0]], n_decoding=1)
    (among_eight,) = lengths(speculator, [[0, 1]], n_decoding=8)
    assert among_eight < 4 < 12 < alone


def test_where_tokens_are_cheap_a_copy_is_fast_among_other_sequences_too() -> None:
    speculator = PerStepSpeculator(ScriptedDrafter(assumed=0.99), GPU)
    assert lengths(speculator, [[0]], n_decoding=8)[0] > 10


def test_a_step_has_no_more_drafted_tokens_than_are_allowed() -> None:
    speculator = PerStepSpeculator(ScriptedDrafter(assumed=0.99), costs(0.002, 1e-7))
    assert sum(lengths(speculator, [[0]] * 16)) == MAX_DRAFTED


def test_where_no_draft_can_pay_the_drafter_is_not_asked() -> None:
    drafter = ScriptedDrafter(assumed=0.99)
    assert lengths(PerStepSpeculator(drafter, costs(0.001, 0.002)), [[0]] * 4) == [0] * 4
    assert drafter.asked == []


def test_a_draft_that_costs_something_is_only_as_long_as_it_pays() -> None:
    cheap = ScriptedDrafter(assumed=0.7, evidence=0, position_s=0.0001)
    dear = ScriptedDrafter(assumed=0.7, evidence=0, position_s=0.001)
    (long,), (short,) = (
        lengths(PerStepSpeculator(drafter, GPU), [[0]]) for drafter in (cheap, dear)
    )
    assert 1 <= short < long < MAX_DRAFT


def test_a_costly_drafter_that_is_right_is_asked_for_long_drafts() -> None:
    drafter = ScriptedDrafter(assumed=0.7, evidence=0, position_s=0.0002)
    speculator, tokens = PerStepSpeculator(drafter, GPU), [0]
    for _ in range(100):
        tokens += [RIGHT] * (1 + lengths(speculator, [tokens])[0])
    assert lengths(speculator, [tokens])[0] > 16


def test_a_costly_drafter_that_is_wrong_is_asked_for_a_hundredth_of_the_time() -> None:
    position_s, step_s = 0.001, 0.002
    drafter = ScriptedDrafter(WRONG, assumed=0.7, evidence=0, position_s=position_s)
    speculator, tokens = PerStepSpeculator(drafter, GPU), [0]
    for n_steps in (50, 1000):
        drafter.asked.clear()
        for _ in range(n_steps):
            lengths(speculator, [tokens])
            tokens.append(RIGHT)
    assert 0 < len(drafter.asked) * position_s <= 0.0125 * 1000 * step_s


def test_of_many_hopeless_sequences_few_are_drafted_for_in_a_step() -> None:
    drafter = ScriptedDrafter(WRONG, assumed=0.01)
    speculator, sequences = PerStepSpeculator(drafter, GPU), [[0] for _ in range(64)]
    for _ in range(90):
        lengths(speculator, sequences)
    assert sum(map(len, drafter.asked)) == 64 * 10


def test_a_forgotten_sequence_is_forgotten_by_the_drafter_too() -> None:
    drafter = ScriptedDrafter()
    speculator = PerStepSpeculator(drafter, GPU)
    lengths(speculator, [[0]])
    speculator.forget(RequestNo(0))
    speculator.forget(RequestNo(7))
    assert drafter.forgotten == [0, 7]
    assert not speculator._tracks


@given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5),
    st.floats(1e-4, 1e-2),
    st.floats(1e-6, 1e-2),
)
def test_the_length_of_one_draft_is_the_fastest_or_none_where_that_is_hardly_faster(
    chances: list[float], first_s: float, further_s: float
) -> None:
    class Listed(ScriptedDrafter):
        def assumed_rate(self, evidence: int) -> float:
            return chances[min(evidence, len(chances)) - 1]

    def rate(length: int) -> float:
        reached, expected = 1.0, 1.0
        for evidence in range(1, length + 1):
            reached *= drafter.assumed_rate(evidence)
            expected += reached
        return expected / (first_s + further_s * length)

    drafter = Listed(evidence=1)
    (length,) = lengths(PerStepSpeculator(drafter, costs(first_s, further_s)), [[0]], limit=5)
    fastest = max(rate(n) for n in range(6)) * (1 - 1e-9)
    hardly = length == 0 and fastest <= rate(0) * exp(LEAST_GAIN)
    assert rate(length) >= fastest or hardly
    assert length == 0 or fastest >= rate(0) * exp(LEAST_GAIN) * (1 - 1e-9)
