"""Figures against values worked out by hand."""

import pytest

from supervisor.bench.figures import Distribution, distribution, figures, percentile
from supervisor.bench.outcome import Failure, Outcome


def outcome(
    began_at: float, *text_at: float, turn: int = 0, failure: Failure | None = None, asked: int = 3
) -> Outcome:
    return Outcome(
        conversation=0,
        turn=turn,
        asked_tokens=asked,
        began_at=began_at,
        ended_at=(text_at or (began_at,))[-1] + 0.5,
        text_at=list(text_at),
        prompt_tokens=10,
        cached_tokens=4,
        output_tokens=len(text_at),
        failure=failure,
    )


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1.0), (25, 1.75), (50, 2.5), (90, 3.7), (100, 4.0)]
)
def test_percentiles_lie_between_neighbours(percent: float, expected: float) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], percent) == pytest.approx(expected)


def test_a_distribution_of_one_and_of_none() -> None:
    assert distribution([7.0]) == Distribution(1, 7.0, 7.0, 7.0, 7.0, 7.0)
    assert distribution([]) is None


def test_a_run_of_two() -> None:
    found = figures([outcome(100.0, 101.0, 101.5, 103.0), outcome(101.0, 104.0, 104.5, 105.5)])
    assert (found.requests, found.succeeded, found.short, found.errors) == (2, 2, 0, {})
    assert found.elapsed_s == 6.0  # from 100 to 105.5 + 0.5
    assert (found.prompt_tokens, found.cached_tokens, found.output_tokens) == (20, 8, 6)
    assert found.output_tokens_per_s == 1.0
    assert found.total_tokens_per_s == pytest.approx(26 / 6)
    assert found.requests_per_s == pytest.approx(2 / 6)
    assert found.time_to_first_token_s == Distribution(
        2, 2.0, 2.0, pytest.approx(2.8), pytest.approx(2.98), 3.0
    )
    gaps = found.inter_token_s
    assert gaps
    assert (gaps.n, gaps.mean, gaps.p50, gaps.max) == (4, 0.875, 0.75, 1.5)
    per_token = found.per_output_token_s
    assert per_token
    assert (per_token.p50, per_token.max) == (0.875, 1.0)  # 2.0 / 2 and 1.5 / 2
    assert found.request_s
    assert (found.request_s.p50, found.request_s.max) == (4.25, 5.0)


def test_failures_are_counted_and_nothing_else_of_them() -> None:
    cut = outcome(0.0, 9.0, failure=Failure.CUT)
    cut.detail = "gone"
    found = figures([outcome(0.0, 1.0, 2.0, 3.0), cut, outcome(0.0, failure=Failure.CUT)])
    assert (found.requests, found.succeeded, found.errors) == (3, 1, {"cut off": 2})
    assert found.output_tokens == 3
    assert found.time_to_first_token_s
    assert found.time_to_first_token_s.max == 1.0
    assert found.said == ["cut off: gone", "cut off: "]


def test_an_answer_of_another_length_is_short() -> None:
    assert figures([outcome(0.0, 1.0, 2.0, asked=3), outcome(0.0, 1.0, asked=1)]).short == 1


def test_turns_are_told_apart() -> None:
    later = outcome(5.0, 5.25, turn=1)
    later.prompt_tokens, later.cached_tokens = 30, 20
    first, second = figures([outcome(0.0, 1.0), later]).turns
    assert (first.turn, first.prompt_tokens, first.cached_tokens) == (0, 10, 4)
    assert (second.turn, second.prompt_tokens, second.cached_tokens) == (1, 30, 20)
    assert second.time_to_first_token_s
    assert second.time_to_first_token_s.p50 == 0.25


def test_nothing_at_all() -> None:
    found = figures([])
    assert (found.requests, found.elapsed_s, found.output_tokens_per_s) == (0, 0.0, 0.0)
    assert found.time_to_first_token_s is None
