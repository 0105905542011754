"""Suspects: suspected, tried alone, cleared, convicted."""

import pytest

from gpufc.ids import RequestId, RequestNo
from gpufc.protocol import TextPrompt
from gpufc.sampling import SamplingParams
from supervisor.dispatch.request import GenerationRequest
from supervisor.dispatch.suspects import (
    MAX_REMEMBERED,
    MEMORY_S,
    Judgement,
    Quarantine,
    Suspects,
    Victim,
)
from supervisor.fleet.exit_reason import WITH_ITS_MACHINE, ExitReason, Reason

CRASH = ExitReason(signal=11, reason=Reason.CRASHED, at=0.0)
A, B, C = RequestNo(1), RequestNo(2), RequestNo(3)


def died(
    suspects: Suspects, batch: dict[int, int], reason: ExitReason = CRASH, now: float = 0.0
) -> RequestNo | None:
    """A death with these sequences (number → tokens), each of a request of its own."""
    victims = [Victim(RequestNo(no), bytes([no]), n_tokens) for no, n_tokens in batch.items()]
    return suspects.died(victims, reason, now)


def test_one_death_makes_no_suspect() -> None:
    suspects = Suspects()
    assert died(suspects, {A: 5, B: 7}) is None
    assert not suspects


def test_what_two_deaths_have_in_common_without_progress_is_suspect() -> None:
    suspects = Suspects()
    died(suspects, {A: 5, B: 7, C: 1})
    assert died(suspects, {A: 5, B: 8}) is None
    assert suspects.open == {A: 5}


def test_a_suspect_that_gains_a_token_is_cleared() -> None:
    suspects = Suspects()
    died(suspects, {A: 5, B: 7})
    died(suspects, {A: 5, B: 7})
    assert not suspects.gained(A, 5)
    assert suspects.gained(A, 6)
    assert suspects.open == {B: 7}


def test_a_suspect_that_dies_alone_is_convicted_and_the_others_are_free() -> None:
    suspects = Suspects()
    died(suspects, {A: 5, B: 7, C: 1})
    died(suspects, {A: 5, B: 7, C: 1})
    suspects.gained(A, 6)
    assert died(suspects, {B: 7}) == B
    assert suspects.open == {C: 1}
    assert suspects.trial_passed() == Judgement({B: 3})
    assert not suspects


def test_an_accused_is_not_convicted_before_the_engine_has_computed_something() -> None:
    suspects = Suspects()
    died(suspects, {A: 5})
    assert died(suspects, {A: 5}) == A
    assert suspects.accused == {A: bytes([A])}
    assert suspects.token_gained(A) == Judgement()
    assert suspects.accused
    assert suspects.token_gained(B) == Judgement({A: 2})
    assert not suspects.accused


def test_an_accused_that_has_left_is_not_judged() -> None:
    suspects = Suspects()
    died(suspects, {A: 5})
    died(suspects, {A: 5})
    suspects.left(A)
    assert suspects.trial_passed() == Judgement()


def convicted(suspects: Suspects, no: RequestNo) -> Judgement:
    """A sequence dies twice alone, and then a worker passes its trial."""
    died(suspects, {no: 0})
    assert died(suspects, {no: 0}) == no
    return suspects.trial_passed()


def test_convictions_of_different_requests_in_a_row_are_none() -> None:
    suspects = Suspects()
    assert convicted(suspects, A).convicts == {A: 2}
    assert convicted(suspects, B).convicts == {B: 2}
    sick = Judgement(acquitted=(C,), is_engine_sick=True)
    assert convicted(suspects, C) == sick
    assert died(suspects, {C: 0}) == C
    assert suspects.trial_passed() == sick


def test_a_token_in_between_makes_convictions_stand_again() -> None:
    suspects = Suspects()
    convicted(suspects, A)
    convicted(suspects, B)
    assert suspects.needs_tokens
    suspects.token_gained(RequestNo(9))
    assert not suspects.needs_tokens
    assert convicted(suspects, C).convicts == {C: 2}


def test_of_another_engine_nothing_is_known() -> None:
    suspects = Suspects()
    died(suspects, {A: 5, B: 7})
    died(suspects, {A: 5, B: 7})
    died(suspects, {A: 5})
    assert suspects.forget() == Judgement(acquitted=(A,))
    assert not suspects
    assert died(suspects, {A: 5}) is None


def test_no_sequence_is_convicted_that_did_not_die_alone() -> None:
    suspects = Suspects()
    died(suspects, {A: 5, B: 7})
    died(suspects, {A: 5, B: 7})
    suspects.gained(A, 6)
    assert died(suspects, {A: 8, B: 7}) is None
    assert suspects.open == {B: 7}


def test_a_sequence_that_was_alone_both_times_is_convicted_at_the_second() -> None:
    suspects = Suspects()
    assert died(suspects, {A: 5}) is None
    assert died(suspects, {A: 5}) == A


def test_a_sequence_that_got_further_in_between_is_not_convicted() -> None:
    suspects = Suspects()
    died(suspects, {A: 5})
    assert died(suspects, {A: 6}) is None


def test_deaths_of_others_in_between_do_not_make_one_forgotten() -> None:
    suspects = Suspects()
    assert died(suspects, {A: 0}) is None
    assert died(suspects, {B: 0}) is None
    assert died(suspects, {A: 0}) == A


def test_a_request_that_is_sent_again_is_known_again() -> None:
    suspects = Suspects()
    suspects.died([Victim(A, b"poison", 3)], CRASH, 0.0)
    suspects.left(A)
    assert suspects.died([Victim(B, b"poison", 3)], CRASH, 1.0) == B


def test_what_died_long_ago_is_forgotten() -> None:
    suspects = Suspects()
    died(suspects, {A: 5}, now=0.0)
    assert died(suspects, {A: 5}, now=MEMORY_S + 1) is None


def test_what_is_remembered_is_bounded() -> None:
    suspects = Suspects()
    for n in range(MAX_REMEMBERED + 10):
        suspects.died([Victim(RequestNo(n), str(n).encode(), 0)], CRASH, 0.0)
    assert suspects.died([Victim(A, b"0", 0)], CRASH, 1.0) is None


@pytest.mark.parametrize(
    "reason", [Reason.KILLED, Reason.OUT_OF_MEMORY, Reason.RESTARTED, *sorted(WITH_ITS_MACHINE)]
)
def test_ends_from_outside_say_nothing_about_requests(reason: Reason) -> None:
    suspects = Suspects()
    for _ in range(3):
        assert died(suspects, {A: 5}, ExitReason(signal=9, reason=reason, at=0.0)) is None
    assert not suspects


def test_a_sequence_that_is_gone_is_no_longer_suspect() -> None:
    suspects = Suspects()
    died(suspects, {A: 5, B: 5})
    died(suspects, {A: 5, B: 5})
    suspects.left(A)
    assert suspects.open == {B: 5}


def request(text: str, seed: int = 1) -> GenerationRequest:
    return GenerationRequest(
        id=RequestId("x"),
        model="m",
        prompts=(TextPrompt(text),),
        sampling=SamplingParams(seed=seed),
        created=0,
    )


def test_an_equal_request_is_refused_for_ten_minutes_with_any_seed() -> None:
    quarantine = Quarantine()
    quarantine.add(request("poison"), now=0.0)
    assert quarantine.holds(request("poison", seed=2), now=MEMORY_S - 1)
    assert not quarantine.holds(request("poison"), now=MEMORY_S + 1)
    assert not quarantine.holds(request("other"), now=1.0)


def test_the_quarantine_is_bounded() -> None:
    quarantine = Quarantine()
    for n in range(MAX_REMEMBERED + 10):
        quarantine.add(request(str(n)), now=0.0)
    assert not quarantine.holds(request("0"), now=1.0)
    assert quarantine.holds(request(str(MAX_REMEMBERED + 9)), now=1.0)


def test_a_conviction_explains_the_deaths_that_the_convict_was_in() -> None:
    suspects = Suspects()
    died(suspects, {A: 5, B: 7})
    died(suspects, {A: 5, B: 8})
    assert died(suspects, {A: 5}) == A
    assert suspects.trial_passed().convicts == {A: 3}


def test_a_death_is_explained_once_however_many_convicts_were_in_it() -> None:
    suspects = Suspects()
    died(suspects, {A: 5, B: 7})
    died(suspects, {A: 5, B: 7})
    died(suspects, {A: 5})
    assert suspects.trial_passed().convicts == {A: 3}
    assert died(suspects, {B: 7}) == B
    assert suspects.trial_passed().convicts == {B: 1}


def test_a_request_that_died_beside_a_convict_is_suspect_at_the_next_death() -> None:
    suspects = Suspects()
    died(suspects, {A: 5, B: 5, C: 5})
    died(suspects, {A: 5, B: 6, C: 6})
    assert died(suspects, {A: 5}) == A
    assert suspects.trial_passed().convicts == {A: 3}
    assert died(suspects, {B: 9, C: 9, 4: 9}) is None
    assert suspects.open == {B: 9, C: 9}
    assert suspects.gained(C, 10)
    assert died(suspects, {B: 9}) == B
    assert suspects.trial_passed().convicts == {B: 2}


def test_one_death_alone_beside_a_convict_s_is_not_enough_to_accuse() -> None:
    suspects = Suspects()
    died(suspects, {A: 5, B: 5})
    died(suspects, {A: 5, B: 6})
    died(suspects, {A: 5})
    suspects.trial_passed()
    assert died(suspects, {B: 9}) is None
    assert suspects.open == {B: 9}


def test_memory_that_ran_out_on_a_device_makes_no_suspect() -> None:
    suspects = Suspects()
    out = ExitReason(
        signal=6, reason=Reason.CRASHED, at=0.0, detail="CUDA error: out of memory in ggml-cuda.cu"
    )
    for _ in range(3):
        assert died(suspects, {A: 5}, out) is None
    assert not suspects
