"""Hosts that are wanted, found, lost and not wanted any more."""

from supervisor.placer.plan import FORGET_S, LONE_S, SHUN_S, End, Plan, Start


def all_steps(plan: Plan, n_hosts: int, now: float = 0.0, able: str = "abc") -> list[Start | End]:
    return list(plan.steps(n_hosts, now, lambda: set(able)))


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


def test_a_lost_node_that_is_the_only_choice_is_used_after_a_moment() -> None:
    plan = Plan({0: "a", 1: "b"})
    plan.lost(0, now=100.0)
    assert all_steps(plan, 2, now=100.0, able="ab") == []
    after = 100.0 + LONE_S
    assert all_steps(plan, 2, now=after, able="ab") == [Start(0, frozenset({"b"}))]


def test_each_further_loss_makes_a_lone_node_wait_longer() -> None:
    plan, now, waits = Plan({0: "a"}), 0.0, list[float]()
    for _ in range(8):
        plan.lost(0, lost_at := now)
        while not all_steps(plan, 1, now, able="a"):
            now += 0.5
        plan.placed(0, "a")
        waits.append(now - lost_at)
    assert waits == [LONE_S, 2.0, 4.0, 8.0, 16.0, 32.0, SHUN_S, SHUN_S]
    now += FORGET_S
    assert plan.shunned(now) == frozenset()
    plan.lost(0, now)
    assert all_steps(plan, 1, now + LONE_S, able="a") == [Start(0, frozenset())]


def test_where_ray_does_not_tell_its_nodes_the_next_attempt_does() -> None:
    plan = Plan({0: "a"})
    plan.lost(0, now=0.0)
    assert all_steps(plan, 1, now=LONE_S, able="") == [Start(0, frozenset())]


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
