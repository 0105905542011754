"""One function chooses the policy; without a drafter or without cuts nothing is drafted."""

import pytest

from engine_worker.backend.profile import Drafting
from engine_worker.speculation.drafter import DraftRequest
from engine_worker.speculation.policies import speculator_for
from engine_worker.speculation.speculator import NoSpeculation
from gpufc.ids import RequestNo
from tests.engine_worker.speculation.scripted_drafter import ScriptedDrafter, costs

COSTS = costs(0.002, 0.00002)


def test_a_state_that_cannot_be_cut_has_no_drafts() -> None:
    assert isinstance(speculator_for(Drafting.NONE, ScriptedDrafter(), COSTS), NoSpeculation)


@pytest.mark.parametrize("drafting", Drafting)
def test_without_a_drafter_nothing_is_drafted(drafting: Drafting) -> None:
    speculator = speculator_for(drafting, None, COSTS)
    requests = [DraftRequest(RequestNo(number), [1, 2, 3], 8, 8) for number in range(2)]
    assert speculator.is_quiet
    assert speculator.draft_all(requests, n_decoding=3) == [[], []]


def test_the_chosen_policy_weighs_the_costs_that_it_was_given() -> None:
    speculator = speculator_for(Drafting.ANY_LENGTH, ScriptedDrafter(assumed=0.99), COSTS)
    assert speculator.draft_all([DraftRequest(RequestNo(1), [0], 5, 5)], n_decoding=1) == [[1] * 5]
