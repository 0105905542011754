"""Drafts are verified where they pay, by the costs there are and by how often they were right."""

from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.speculation.draft_lengths import LEAST_GAIN, MAX_DRAFT, MAX_DRAFTED
from engine_worker.speculation.drafter import DraftRequest
from engine_worker.speculation.per_step import Speculation
from gpufc.ids import RequestNo
from tests.engine_worker.speculation.scripted_drafter import RIGHT, WRONG, ScriptedDrafter, costs

CPU, GPU = costs(0.0093, 0.0043), costs(0.002, 0.00002)


def lengths(
    speculation: Speculation, sequences: list[list[int]], limit: int = 100, n_decoding: int = 0
) -> list[int]:
    requests = [
        DraftRequest(RequestNo(number), tokens, limit) for number, tokens in enumerate(sequences)
    ]
    return [len(draft) for draft in speculation.draft_all(requests, n_decoding=n_decoding or None)]


def after(n_steps: int, speculation: Speculation, n_sequences: int = 1) -> list[int]:
    """Lengths of the drafts after so many steps in which each sequence gained one `RIGHT`."""
    sequences = [[0] for _ in range(n_sequences)]
    for _ in range(n_steps):
        lengths(speculation, sequences)
        for tokens in sequences:
            tokens.append(RIGHT)
    return lengths(speculation, sequences)


def test_nothing_is_drafted_while_costs_are_unknown() -> None:
    assert after(3, Speculation(ScriptedDrafter(), StepCosts())) == [0]


@pytest.mark.parametrize("costs", [CPU, GPU])
def test_drafts_that_are_always_right_are_verified_at_full_length(costs: StepCosts) -> None:
    assert after(200, Speculation(ScriptedDrafter(), costs)) == [MAX_DRAFT]


@pytest.mark.parametrize("costs", [CPU, GPU])
def test_drafts_that_are_never_right_are_not_verified(costs: StepCosts) -> None:
    assert after(200, Speculation(ScriptedDrafter(WRONG), costs)) == [0]


def test_a_doubtful_draft_pays_where_a_further_token_costs_little() -> None:
    assert after(0, Speculation(ScriptedDrafter(assumed=0.3), CPU)) == [0]
    (length,) = after(0, Speculation(ScriptedDrafter(assumed=0.3), GPU))
    assert 1 <= length < 8


def test_text_that_turns_repetitive_is_noticed_without_verifying_anything() -> None:
    drafter = ScriptedDrafter(WRONG)
    speculation, tokens = Speculation(drafter, CPU), [0]
    for _ in range(300):
        assert lengths(speculation, [tokens])[0] <= 1
        tokens.append(RIGHT)
    drafter.token = RIGHT
    for _ in range(150):
        lengths(speculation, [tokens])
        tokens.append(RIGHT)
    assert lengths(speculation, [tokens])[0] > 8


def test_a_draft_is_no_longer_than_its_limit() -> None:
    speculation = Speculation(ScriptedDrafter(assumed=0.99), GPU)
    assert lengths(speculation, [[0]], limit=3) == [3]
    assert lengths(speculation, [[0, 1]], limit=0) == [0]


def test_only_what_came_in_the_place_of_the_draft_is_compared() -> None:
    """Four drafted tokens, of which the sequence gained two before something else."""
    drafter = ScriptedDrafter(assumed=0.9)
    speculation = Speculation(drafter, GPU)
    tokens = [0]
    for _ in range(100):
        lengths(speculation, [tokens], limit=4)
        tokens += [RIGHT, RIGHT, WRONG]
    (track,) = speculation._tracks.values()
    assert track.odds.chance(50) == pytest.approx(2 / 3, abs=0.05)


def test_a_sequence_that_copies_does_not_stop_those_that_do_not() -> None:
    """Costs of the CPU: eight streams at 40 ms, of which one could draft 32 tokens for 140 ms."""
    speculation = Speculation(ScriptedDrafter(assumed=0.99), CPU)
    (alone,) = lengths(speculation, [[0]], n_decoding=1)
    (among_eight,) = lengths(speculation, [[0, 1]], n_decoding=8)
    assert among_eight < 4 < 12 < alone


def test_where_tokens_are_cheap_a_copy_goes_fast_among_others_too() -> None:
    speculation = Speculation(ScriptedDrafter(assumed=0.99), GPU)
    assert lengths(speculation, [[0]], n_decoding=8)[0] > 10


def test_a_step_has_no_more_drafted_tokens_than_are_allowed() -> None:
    speculation = Speculation(ScriptedDrafter(assumed=0.99), costs(0.002, 1e-7))
    assert sum(lengths(speculation, [[0]] * 16)) == MAX_DRAFTED


def test_where_no_draft_can_pay_the_drafter_is_not_asked() -> None:
    drafter = ScriptedDrafter(assumed=0.99)
    assert lengths(Speculation(drafter, costs(0.001, 0.002)), [[0]] * 4) == [0] * 4
    assert drafter.asked == []


def test_a_draft_that_costs_something_is_only_as_long_as_it_pays() -> None:
    cheap = ScriptedDrafter(assumed=0.7, evidence=0, position_s=0.0001)
    dear = ScriptedDrafter(assumed=0.7, evidence=0, position_s=0.001)
    (long,), (short,) = (lengths(Speculation(drafter, GPU), [[0]]) for drafter in (cheap, dear))
    assert 1 <= short < long < MAX_DRAFT


def test_a_costly_drafter_that_is_right_is_asked_for_long_drafts() -> None:
    drafter = ScriptedDrafter(assumed=0.7, evidence=0, position_s=0.0002)
    speculation, tokens = Speculation(drafter, GPU), [0]
    for _ in range(100):
        tokens += [RIGHT] * (1 + lengths(speculation, [tokens])[0])
    assert lengths(speculation, [tokens])[0] > 16


def test_a_costly_drafter_that_is_wrong_is_asked_for_a_hundredth_of_the_time() -> None:
    position_s, step_s = 0.001, 0.002
    drafter = ScriptedDrafter(WRONG, assumed=0.7, evidence=0, position_s=position_s)
    speculation, tokens = Speculation(drafter, GPU), [0]
    for n_steps in (50, 1000):
        drafter.asked.clear()
        for _ in range(n_steps):
            lengths(speculation, [tokens])
            tokens.append(RIGHT)
    assert 0 < len(drafter.asked) * position_s <= 0.0125 * 1000 * step_s


def test_of_many_hopeless_sequences_few_are_looked_at_in_a_step() -> None:
    drafter = ScriptedDrafter(WRONG, assumed=0.01)
    speculation, sequences = Speculation(drafter, GPU), [[0] for _ in range(64)]
    for _ in range(90):
        lengths(speculation, sequences)
    assert sum(map(len, drafter.asked)) == 64 * 10


def test_a_forgotten_sequence_is_forgotten_by_the_drafter_too() -> None:
    drafter = ScriptedDrafter()
    speculation = Speculation(drafter, GPU)
    lengths(speculation, [[0]])
    speculation.forget(RequestNo(0))
    speculation.forget(RequestNo(7))
    assert drafter.forgotten == [0, 7]
    assert not speculation._tracks


@given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5),
    st.floats(1e-4, 1e-2),
    st.floats(1e-6, 1e-2),
)
def test_the_length_of_one_draft_is_the_fastest_or_none_where_that_is_hardly_faster(
    chances: list[float], first_s: float, further_s: float
) -> None:
    class Listed(ScriptedDrafter):
        def chance(self, evidence: int) -> float:
            return chances[min(evidence, len(chances)) - 1]

    def rate(length: int) -> float:
        reached, expected = 1.0, 1.0
        for evidence in range(1, length + 1):
            reached *= drafter.chance(evidence)
            expected += reached
        return expected / (first_s + further_s * length)

    drafter = Listed(evidence=1)
    (length,) = lengths(Speculation(drafter, costs(first_s, further_s)), [[0]], limit=5)
    fastest = max(rate(n) for n in range(6)) * (1 - 1e-9)
    hardly = length == 0 and fastest <= rate(0) * exp(LEAST_GAIN)
    assert rate(length) >= fastest or hardly
    assert length == 0 or fastest >= rate(0) * exp(LEAST_GAIN) * (1 - 1e-9)
