"""Hosts that are wanted, found, lost and not wanted any more."""

from supervisor.placer.plan import SHUN_S, End, Plan, Start


def all_steps(plan: Plan, n_hosts: int, now: float = 0.0) -> list[Start | End]:
    return list(plan.steps(n_hosts, now))


def test_hosts_are_started_one_after_the_other_each_on_a_node_of_its_own() -> None:
    plan = Plan({})
    assert all_steps(plan, 2) == [Start(0, frozenset())]
    assert all_steps(plan, 2) == []
    plan.placed(0, "a")
    assert all_steps(plan, 2) == [Start(1, frozenset({"a"}))]
    plan.placed(1, "b")
    assert all_steps(plan, 2) == []


def test_what_a_placer_before_has_started_is_kept() -> None:
    plan = Plan({0: "a", 1: "b"})
    assert all_steps(plan, 2) == []
    assert plan.nodes == {0: "a", 1: "b"}


def test_a_lost_node_is_shunned_for_a_while() -> None:
    plan = Plan({0: "a", 1: "b"})
    plan.lost(0, now=100.0)
    assert all_steps(plan, 2, now=101.0) == [Start(0, frozenset({"a", "b"}))]
    assert plan.shunned(100.0 + SHUN_S - 1.0) == {"a"}
    assert plan.shunned(100.0 + SHUN_S) == frozenset()


def test_a_start_that_fails_is_tried_again() -> None:
    plan = Plan({})
    assert all_steps(plan, 1)
    plan.lost(0, now=0.0)
    assert all_steps(plan, 1) == [Start(0, frozenset())]


def test_hosts_that_are_not_wanted_any_more_end_the_last_ones_first() -> None:
    plan = Plan({0: "a", 1: "b", 2: "c"})
    assert all_steps(plan, 1) == [End(2), End(1)]
    assert all_steps(plan, 1) == []
    plan.placed(2, "c")  # too late
    assert plan.nodes == {0: "a"}
