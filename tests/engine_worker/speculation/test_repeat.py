"""A draft is the last token again; a longer run of it is more evidence."""

import pytest

from engine_worker.backend.profile import Drafting
from engine_worker.speculation.drafter import Draft, DraftRequest
from engine_worker.speculation.repeat import MOST_COUNTED, Repeat
from engine_worker.speculation.speculator import speculator_for
from gpufc.ids import RequestNo
from tests.engine_worker.speculation.scripted_drafter import costs


def request(tokens: list[int], limit: int = 3, key: int = 1) -> DraftRequest:
    return DraftRequest(RequestNo(key), tokens, limit, limit)


@pytest.mark.parametrize(
    ("tokens", "evidence"),
    [([7], 0), ([1, 7], 0), ([7, 1, 7], 0), ([1, 7, 7], 1), ([7, 7, 7], 2)],
)
def test_the_last_token_is_drafted_with_its_repeats_as_evidence(
    tokens: list[int], evidence: int
) -> None:
    assert Repeat().draft_all([request(tokens)]) == [Draft([7, 7, 7], evidence)]


def test_a_long_run_is_counted_up_to_a_limit() -> None:
    (found,) = Repeat().draft_all([request([7] * 10_000)])
    assert found.evidence == MOST_COUNTED


def test_an_empty_sequence_and_a_limit_of_0_bring_no_draft() -> None:
    drafts = Repeat().draft_all([request([]), request([7], limit=0)])
    assert [draft.tokens for draft in drafts] == [[], []]


def test_each_sequence_gets_its_own_draft_and_none_is_remembered() -> None:
    repeat = Repeat()
    drafts = repeat.draft_all([request([1, 2], key=1), request([3, 3], key=2)])
    assert [draft.tokens for draft in drafts] == [[2] * 3, [3] * 3]
    repeat.forget(RequestNo(1))
    repeat.forget(RequestNo(9))
    assert repeat.draft_all([request([1, 5], key=1)]) == [Draft([5] * 3, 0)]


def test_a_rate_is_a_probability_that_rises_with_the_evidence() -> None:
    rates = [Repeat().assumed_rate(evidence) for evidence in range(MOST_COUNTED + 1)]
    assert rates == sorted(rates)
    assert rates[0] == 0.0
    assert rates[-1] < 1.0


def test_a_run_is_verified_and_a_new_token_is_not() -> None:
    speculator = speculator_for(Drafting.PER_STEP, Repeat(), costs(0.002, 0.00002))
    run, new = speculator.draft_all(
        [request([7] * 40, key=1), request([1, 2, 3], key=2)], n_decoding=2
    )
    assert run == [7, 7, 7]
    assert new == []
