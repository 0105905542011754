"""Who is suspected, tried, cleared and convicted."""

import pytest

from gpufc.ids import RequestId, RequestNo
from gpufc.protocol import TextPrompt
from gpufc.sampling import SamplingParams
from supervisor.dispatch.request import GenerationRequest
from supervisor.dispatch.suspects import MAX_QUARANTINED, QUARANTINE_S, Quarantine, Suspects
from supervisor.fleet.exit_reason import ExitReason, Reason

CRASH = ExitReason(signal=11, reason=Reason.CRASHED, at=0.0)
A, B, C = RequestNo(1), RequestNo(2), RequestNo(3)


def test_one_death_suspects_nobody() -> None:
    suspects = Suspects()
    assert suspects.died({A: 5, B: 7}, CRASH) is None
    assert not suspects


def test_what_two_deaths_have_in_common_without_progress_is_suspect() -> None:
    suspects = Suspects()
    suspects.died({A: 5, B: 7, C: 1}, CRASH)
    assert suspects.died({A: 5, B: 8}, CRASH) is None
    assert suspects.suspects == {A: 5}


def test_a_suspect_that_gains_a_token_is_cleared() -> None:
    suspects = Suspects()
    suspects.died({A: 5, B: 7}, CRASH)
    suspects.died({A: 5, B: 7}, CRASH)
    assert not suspects.gained(A, 5)
    assert suspects.gained(A, 6)
    assert suspects.suspects == {B: 7}


def test_a_suspect_that_dies_alone_is_convicted_at_the_third_death() -> None:
    suspects = Suspects()
    suspects.died({A: 5, B: 7}, CRASH)
    suspects.died({A: 5, B: 7}, CRASH)
    suspects.gained(A, 6)
    assert suspects.died({B: 7}, CRASH) == B
    assert not suspects


def test_a_sequence_that_was_alone_both_times_is_convicted_at_the_second() -> None:
    suspects = Suspects()
    assert suspects.died({A: 5}, CRASH) is None
    assert suspects.died({A: 5}, CRASH) == A


def test_a_sequence_that_got_further_in_between_is_not_convicted() -> None:
    suspects = Suspects()
    suspects.died({A: 5}, CRASH)
    assert suspects.died({A: 6}, CRASH) is None


@pytest.mark.parametrize("reason", [Reason.KILLED, Reason.OUT_OF_MEMORY, Reason.RESTARTED])
def test_ends_from_outside_say_nothing_about_requests(reason: Reason) -> None:
    suspects = Suspects()
    for _ in range(3):
        assert suspects.died({A: 5}, ExitReason(signal=9, reason=reason, at=0.0)) is None
    assert not suspects


def test_a_sequence_that_has_ended_is_no_longer_suspect() -> None:
    suspects = Suspects()
    suspects.died({A: 5, B: 5}, CRASH)
    suspects.died({A: 5, B: 5}, CRASH)
    suspects.ended(A)
    assert suspects.suspects == {B: 5}


def request(text: str, seed: int = 1) -> GenerationRequest:
    return GenerationRequest(
        id=RequestId("x"),
        model="m",
        prompts=(TextPrompt(text),),
        sampling=SamplingParams(seed=seed),
        created=0,
    )


def test_an_equal_request_is_refused_for_ten_minutes_whatever_its_seed() -> None:
    quarantine = Quarantine()
    quarantine.add(request("poison"), now=0.0)
    assert quarantine.holds(request("poison", seed=2), now=QUARANTINE_S - 1)
    assert not quarantine.holds(request("poison"), now=QUARANTINE_S + 1)
    assert not quarantine.holds(request("other"), now=1.0)


def test_the_quarantine_is_bounded() -> None:
    quarantine = Quarantine()
    for n in range(MAX_QUARANTINED + 10):
        quarantine.add(request(str(n)), now=0.0)
    assert not quarantine.holds(request("0"), now=1.0)
    assert quarantine.holds(request(str(MAX_QUARANTINED + 9)), now=1.0)
