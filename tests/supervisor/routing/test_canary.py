"""The rules of a canary: rolled back by errors, slowness or deaths, else taken over."""

from random import Random

import pytest

from supervisor.routing.canary import Canary, CanaryRules, Outcome, Side, Verdict

RULES = CanaryRules(share=0.2, n_enough=50, least_s=10.0, most_s=1000.0)


def run(
    *,
    n: int = 400,
    errors: dict[Side, float] | None = None,
    slower: float = 1.0,
    seed: int = 1,
    rules: CanaryRules = RULES,
) -> tuple[Canary, Verdict, int]:
    """One request a second. Latencies spread over a factor of ten. Returns the canary, its verdict
    and the number of its requests until then."""
    dice = Random(seed)
    canary = Canary(rules, now=0.0)
    n_canary = 0
    for second in range(n):
        side = canary.side()
        n_canary += side is Side.CANARY
        factor = slower if side is Side.CANARY else 1.0
        ok = dice.random() >= (errors or {}).get(side, 0.0)
        first_s = factor * 0.2 * dice.lognormvariate(0.0, 0.6)
        token_s = factor * 0.01 * dice.lognormvariate(0.0, 0.3)
        canary.ended(side, Outcome(ok, first_s if ok else None, token_s if ok else None))
        if (verdict := canary.verdict(float(second))) is not Verdict.UNDECIDED:
            return canary, verdict, n_canary
    return canary, Verdict.UNDECIDED, n_canary


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 1.0])
def test_exactly_its_share_of_requests_goes_to_the_canary(share: float) -> None:
    canary = Canary(CanaryRules(share=share), now=0.0)
    n = sum(canary.side() is Side.CANARY for _ in range(1000))
    assert abs(n - 1000 * share) <= 1


def test_an_equal_canary_takes_over_and_never_raises_a_false_alarm() -> None:
    verdicts = [run(seed=seed)[1] for seed in range(25)]
    assert verdicts == [Verdict.TAKE_OVER] * 25


def test_it_does_not_take_over_before_enough_requests_and_time() -> None:
    rules = CanaryRules(share=1.0, n_enough=5, least_s=30.0)
    canary = Canary(rules, now=0.0)
    for _ in range(10):
        canary.ended(Side.CANARY, Outcome(ok=True))
    assert canary.verdict(29.0) is Verdict.UNDECIDED
    assert canary.verdict(30.0) is Verdict.TAKE_OVER


def test_a_failing_canary_is_rolled_back_after_few_requests() -> None:
    canary, verdict, n_canary = run(errors={Side.CANARY: 1.0})
    assert verdict is Verdict.ROLL_BACK
    assert n_canary <= 6
    assert "requests failed" in canary.reason


def test_a_canary_with_some_errors_is_rolled_back_before_it_takes_over() -> None:
    assert all(
        run(errors={Side.CANARY: 0.5}, seed=seed)[1] is Verdict.ROLL_BACK for seed in range(50)
    )


def test_errors_of_both_sides_are_no_fault_of_the_canary() -> None:
    both = {Side.CANARY: 0.3, Side.STABLE: 0.3}
    verdicts = [run(errors=both, seed=seed)[1] for seed in range(25)]
    assert verdicts.count(Verdict.ROLL_BACK) <= 3


def test_a_slow_canary_is_rolled_back_and_the_reason_has_both_figures() -> None:
    canary, verdict, n_canary = run(slower=3.0)
    assert verdict is Verdict.ROLL_BACK
    assert n_canary <= 30
    assert "token takes" in canary.reason


def test_a_slightly_slower_canary_within_the_ratio_takes_over() -> None:
    verdicts = [run(slower=1.2, seed=seed)[1] for seed in range(15)]
    assert verdicts == [Verdict.TAKE_OVER] * 15


def test_deaths_roll_it_back_and_one_is_forgiven() -> None:
    canary = Canary(RULES, now=0.0)
    canary.died()
    assert canary.verdict(1.0) is Verdict.UNDECIDED
    canary.died()
    assert canary.verdict(2.0) is Verdict.ROLL_BACK
    assert "died 2 times" in canary.reason


def test_without_requests_it_ends_rolled_back_and_a_verdict_stays() -> None:
    canary = Canary(RULES, now=0.0)
    assert canary.verdict(999.0) is Verdict.UNDECIDED
    assert canary.verdict(1000.0) is Verdict.ROLL_BACK
    for _ in range(100):
        canary.ended(Side.CANARY, Outcome(ok=True))
    assert canary.verdict(1001.0) is Verdict.ROLL_BACK
