"""Given these facts, exactly these actions."""

from supervisor.residency.memory import HOST, Free, Memory
from supervisor.residency.port import (
    Action,
    Close,
    Evict,
    EvictReason,
    Load,
    Placement,
    Refuse,
    Reopen,
    Rules,
    State,
    TenantNo,
    Terms,
    Wait,
    WaitReason,
)
from supervisor.residency.residency import Residency

CUDA = "CUDA0"
AT_ONCE = Rules(min_stay_s=0.0, stay_per_load=0.0, patience_s=5.0)


def way(n: int, *, name: str = "whole", degraded: bool = False) -> Placement:
    return Placement(name=name, need=Memory(devices={CUDA: n}), degraded=degraded)


class Bench:
    """A device of ten bytes, of which all that is loaded is seen by the next measurement."""

    def __init__(self, rules: Rules = AT_ONCE, **terms: Terms) -> None:
        self.residency = Residency(rules)
        self.held: dict[TenantNo, int] = {}
        self.contexts: dict[str, int] = {}
        for model, one in terms.items():
            self.residency.register(model, one)
        self.measure(0.0)

    def measure(self, now: float) -> None:
        self.residency.measured(
            Free(
                at=now,
                host_bytes=1000,
                total_host_bytes=1000,
                devices={CUDA: 10 - sum(self.held.values())},
                total_devices={CUDA: 10},
                contexts=self.contexts,
            )
        )

    def decide(self, now: float) -> tuple[Action, ...]:
        return self.residency.decide(now)

    def load(self, model: str, now: float) -> TenantNo:
        """Ask for a model that fits, and load it at once."""
        self.residency.demand(model, 1, now)
        (action,) = [one for one in self.decide(now) if isinstance(one, Load)]
        need = action.placement.need
        self.held[action.tenant] = need.at(CUDA) + self.contexts.get(CUDA, 0)
        self.residency.loaded(action.tenant, need, now)
        self.residency.demand(model, 0, now)
        self.residency.used(action.tenant, 1, now)
        self.residency.used(action.tenant, 0, now)
        self.measure(now)
        return action.tenant

    def leave(self, tenant: TenantNo, now: float) -> None:
        del self.held[tenant]
        self.residency.gone(tenant, now)
        self.measure(now)


def small(**more: object) -> Terms:
    return Terms(placements=(way(5),), **more)  # type: ignore[arg-type]


def test_the_model_used_the_longest_ago_makes_room_and_its_memory_is_waited_for() -> None:
    bench = Bench(a=small(), b=small(), c=small())
    a, b = bench.load("a", 1.0), bench.load("b", 2.0)
    bench.residency.used(a, 1, 3.0)
    bench.residency.used(a, 0, 3.0)
    bench.residency.demand("c", 1, 4.0)
    assert bench.decide(4.0) == (
        Evict(b, "b", EvictReason.ROOM, "c"),
        Wait("c", WaitReason.MEMORY_SETTLING, 1, None),
    )
    assert bench.decide(4.1) == (Wait("c", WaitReason.MEMORY_SETTLING, 1, None),)
    bench.residency.gone(b, 4.2)
    assert bench.decide(4.2) == (Wait("c", WaitReason.MEMORY_SETTLING, 1, None),)
    del bench.held[b]
    bench.measure(4.3)
    assert [type(one) for one in bench.decide(4.3)] == [Load]


def test_memory_that_does_not_come_back_is_not_counted_on() -> None:
    bench = Bench(a=small(), b=small(), c=small())
    a, b = bench.load("a", 1.0), bench.load("b", 2.0)
    bench.residency.demand("c", 1, 3.0)
    assert bench.decide(3.0)[0] == Evict(a, "a", EvictReason.ROOM, "c")
    bench.residency.gone(a, 3.1)
    bench.measure(3.2)  # the device still reports it as taken
    assert bench.decide(3.2)[0] == Evict(b, "b", EvictReason.ROOM, "c")


def test_a_worker_that_has_grown_leaves_less_of_what_the_operator_allows() -> None:
    rules = Rules(min_stay_s=0.0, stay_per_load=0.0, limit_bytes={CUDA: 8})
    bench = Bench(rules, a=Terms(placements=(way(3),)), b=Terms(placements=(way(5),)))
    first = bench.load("a", 0.0)
    bench.residency.grew(first, Memory(devices={CUDA: 4}))
    bench.residency.demand("b", 1, 1.0)
    assert Evict(first, "a", EvictReason.ROOM, "b") in bench.decide(1.0)


def test_a_context_counts_against_what_is_free_and_not_against_the_limit() -> None:
    bench = Bench(Rules(min_stay_s=0.0, stay_per_load=0.0, limit_bytes={CUDA: 9}))
    for name, n in (("a", 4), ("b", 4)):
        bench.residency.register(name, Terms(placements=(way(n),)))
    bench.contexts = {CUDA: 2}
    bench.measure(0.0)
    first = bench.load("a", 0.0)  # takes 4 and 2 of 10
    bench.residency.demand("b", 1, 1.0)
    assert Evict(first, "a", EvictReason.ROOM, "b") in bench.decide(1.0)  # 4 are left, 6 needed
    bench.leave(first, 2.0)
    assert [type(one) for one in bench.decide(2.0)] == [Load]


def test_what_fits_without_its_context_only_is_refused() -> None:
    bench = Bench(huge=Terms(placements=(way(9),)))
    bench.contexts = {CUDA: 2}
    bench.measure(0.0)
    bench.residency.demand("huge", 1, 1.0)
    (refusal,) = bench.decide(1.0)
    assert isinstance(refusal, Refuse)


def test_what_cannot_fit_is_refused_and_nothing_is_evicted() -> None:
    bench = Bench(a=small(), huge=Terms(placements=(way(11),)), pinned=small(pinned=True))
    bench.load("a", 1.0)
    bench.residency.demand("huge", 1, 2.0)
    (refusal,) = bench.decide(2.0)
    assert isinstance(refusal, Refuse)
    assert refusal.retry_after_s is None
    assert "11 B at CUDA0" in refusal.reason


def test_beside_a_pinned_model_the_refusal_names_it_and_may_be_retried() -> None:
    bench = Bench(big=Terms(placements=(way(8),)), pinned=small(pinned=True))
    bench.load("pinned", 1.0)
    assert bench.residency.refusal("big", 2.0) is not None
    bench.residency.demand("big", 1, 2.0)
    (refusal,) = bench.decide(2.0)
    assert isinstance(refusal, Refuse)
    assert refusal.retry_after_s == 30.0
    assert "pinned stay" in refusal.reason


def test_a_busy_model_is_closed_once_the_newcomer_has_waited_long_enough() -> None:
    bench = Bench(a=Terms(placements=(way(10),)), b=small())
    a = bench.load("a", 1.0)
    bench.residency.used(a, 2, 2.0)
    bench.residency.demand("b", 1, 3.0)
    assert bench.decide(3.0) == (Wait("b", WaitReason.BUSY, 1, None),)
    assert bench.residency.wake_at(3.0) == 8.0
    assert bench.decide(8.0)[0] == Close(a, "a", "b")
    bench.residency.used(a, 1, 9.0)
    assert bench.decide(9.0) == (Wait("b", WaitReason.BUSY, 1, None),)
    bench.residency.used(a, 0, 10.0)
    assert bench.decide(10.0)[0] == Evict(a, "a", EvictReason.ROOM, "b")


def test_a_closed_model_opens_again_when_the_newcomer_gives_up() -> None:
    bench = Bench(a=Terms(placements=(way(10),)), b=small())
    a = bench.load("a", 1.0)
    bench.residency.used(a, 1, 2.0)
    bench.residency.demand("b", 1, 3.0)
    assert bench.decide(8.0)[0] == Close(a, "a", "b")
    bench.residency.demand("b", 0, 8.5)
    assert bench.decide(8.5) == (Reopen(a, "a"),)


def test_a_model_stays_for_a_while_before_it_goes_for_another() -> None:
    rules = Rules(min_stay_s=1.0, stay_per_load=2.0)
    bench = Bench(rules, a=Terms(placements=(way(10),), load_s=3.0), b=small())
    a = bench.load("a", 10.0)
    bench.residency.demand("b", 1, 10.0)
    assert bench.decide(10.0) == (Wait("b", WaitReason.MIN_STAY, 1, None),)
    for at in (12.0, 14.0, 15.9):  # requests that come again and again
        bench.residency.used(a, 1, at)
        assert bench.decide(at) == (Wait("b", WaitReason.BUSY, 1, None),)
        bench.residency.used(a, 0, at)
        assert bench.decide(at) == (Wait("b", WaitReason.MIN_STAY, 1, None),)
    assert bench.residency.wake_at(15.9) == 16.0
    assert bench.decide(16.0)[0] == Evict(a, "a", EvictReason.ROOM, "b")


def test_a_model_without_requests_for_a_moment_goes_before_the_end_of_its_stay() -> None:
    rules = Rules(min_stay_s=1.0, stay_per_load=2.0, pause_s=0.25, pause_per_load=0.5)
    for load_s, pause_s in ((0.1, 0.25), (3.0, 1.5), (8.0, 4.0)):
        bench = Bench(rules, a=Terms(placements=(way(10),), load_s=load_s), b=small())
        a = bench.load("a", 10.0)
        bench.residency.used(a, 1, 10.0)
        bench.residency.used(a, 0, 10.5)
        bench.residency.demand("b", 1, 10.5)
        assert bench.decide(10.5) == (Wait("b", WaitReason.MIN_STAY, 1, None),)
        assert bench.residency.wake_at(10.5) == 10.5 + pause_s
        assert bench.decide(10.5 + pause_s)[0] == Evict(a, "a", EvictReason.ROOM, "b")


def test_clients_that_think_for_less_than_half_a_load_keep_their_model() -> None:
    """Otherwise each of their requests would wait for a load."""
    bench = Bench(Rules(), a=Terms(placements=(way(10),), load_s=20.0), b=small())
    a = bench.load("a", 100.0)
    bench.residency.demand("b", 1, 100.0)
    for at in range(101, 117, 3):  # a second of answer, two of thought
        bench.residency.used(a, 1, at)
        bench.residency.used(a, 0, at + 1)
        assert bench.decide(at + 2.9) == (Wait("b", WaitReason.MIN_STAY, 1, None),)
    assert bench.decide(120.0)[0] == Evict(a, "a", EvictReason.ROOM, "b")


def test_the_longest_wait_is_first_and_claims_its_room() -> None:
    bench = Bench(
        busy=small(), big=Terms(placements=(way(10),)), little=Terms(placements=(way(2),))
    )
    busy = bench.load("busy", 1.0)
    bench.residency.used(busy, 1, 1.0)
    bench.residency.demand("big", 1, 2.0)
    bench.residency.demand("little", 1, 3.0)
    first, second = bench.decide(3.0)
    assert isinstance(first, Wait)
    assert isinstance(second, Wait)
    assert (first.model, first.position) == ("big", 1)
    assert (second.model, second.position) == ("little", 2)


def test_priority_moves_a_model_ahead_by_a_bounded_time() -> None:
    bench = Bench(a=Terms(placements=(way(10),)), b=Terms(placements=(way(10),), priority=1))
    bench.residency.demand("a", 1, 0.0)
    bench.residency.demand("b", 1, 29.0)
    loads = [one.model for one in bench.decide(29.0) if isinstance(one, Load)]
    assert loads == ["b"]
    late = Bench(a=Terms(placements=(way(10),)), b=Terms(placements=(way(10),), priority=1))
    late.residency.demand("a", 1, 0.0)
    late.residency.demand("b", 1, 31.0)
    assert [one.model for one in late.decide(31.0) if isinstance(one, Load)] == ["a"]


def test_an_idle_model_goes_after_its_keep_alive_and_a_pinned_one_does_not() -> None:
    bench = Bench(a=small(keep_alive_s=60.0), b=small(keep_alive_s=60.0, pinned=True))
    a = bench.load("a", 10.0)
    bench.load("b", 10.0)
    assert bench.residency.wake_at(10.0) == 70.0
    assert bench.decide(69.0) == ()
    assert bench.decide(70.0) == (Evict(a, "a", EvictReason.EXPIRED),)
    assert bench.residency.state("a", 70.0) is State.UNLOADING
    bench.leave(a, 70.5)
    assert bench.residency.state("a", 71.0) is State.UNLOADED


def test_an_operator_unloads_a_busy_model_when_it_is_idle_even_a_pinned_one() -> None:
    bench = Bench(a=small(pinned=True))
    a = bench.load("a", 1.0)
    bench.residency.used(a, 1, 2.0)
    bench.residency.unload("a", 3.0)
    assert bench.decide(3.0) == (Close(a, "a", None),)
    bench.residency.used(a, 0, 4.0)
    assert bench.decide(4.0) == (Evict(a, "a", EvictReason.ASKED),)


def fail(bench: Bench, now: float, *, lacked_memory: bool = False) -> Placement:
    bench.residency.demand("a", 1, now)
    (action,) = [one for one in bench.decide(now) if isinstance(one, Load)]
    bench.residency.load_failed(action.tenant, "broken", now, lacked_memory=lacked_memory)
    bench.residency.gone(action.tenant, now)
    bench.measure(now)
    return action.placement


def test_a_model_that_cannot_load_cools_down_twice_as_long_each_time() -> None:
    bench = Bench(a=small())
    now = 0.0
    for pause_s in (10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0):
        fail(bench, now)
        assert bench.residency.failure("a", now) == ("broken", pause_s)
        assert bench.decide(now + 1) == (Refuse("a", "broken", pause_s - 1),)
        assert bench.residency.state("a", now + 1) is State.FAILED
        now += pause_s
    bench.residency.forgive("a")
    assert bench.residency.failure("a", now) is None


def test_after_a_lack_of_memory_the_degraded_placement_is_tried_once() -> None:
    bench = Bench(a=Terms(placements=(way(5), way(3, name="fewer", degraded=True))))
    assert fail(bench, 0.0, lacked_memory=True).name == "whole"
    assert fail(bench, 1.0, lacked_memory=True).name == "fewer"
    assert isinstance(bench.decide(2.0)[0], Refuse)


def test_where_the_whole_model_can_never_fit_the_degraded_placement_is_used() -> None:
    bench = Bench(a=Terms(placements=(way(20), way(3, name="fewer", degraded=True))))
    bench.residency.demand("a", 1, 0.0)
    (action,) = bench.decide(0.0)
    assert isinstance(action, Load)
    assert action.placement.name == "fewer"


def test_a_worker_that_is_restarted_keeps_its_memory_and_is_not_evicted() -> None:
    bench = Bench(a=Terms(placements=(way(10),)), b=small())
    a = bench.load("a", 1.0)
    bench.residency.restarting(a, 2.0)
    bench.residency.demand("b", 1, 2.0)
    assert all(isinstance(one, Wait) for one in bench.decide(2.0))
    bench.residency.loaded(a, Memory(devices={CUDA: 10}), 3.0)
    bench.measure(3.0)
    assert bench.decide(3.0)[0] == Evict(a, "a", EvictReason.ROOM, "b")


def test_replicas_take_spare_room_only_and_go_before_the_last_worker_of_a_model() -> None:
    third = Terms(placements=(way(3),))
    bench = Bench(a=Terms(placements=(way(3),), replicas=3), b=third, c=third)
    b = bench.load("b", 1.0)
    first = bench.load("a", 2.0)
    replica = next(one for one in bench.decide(2.0) if isinstance(one, Load))
    bench.held[replica.tenant] = 3
    bench.residency.loaded(replica.tenant, replica.placement.need, 2.0)
    bench.measure(2.5)
    assert bench.decide(3.0) == ()
    bench.residency.demand("c", 1, 4.0)
    evicted = bench.decide(4.0)[0]
    assert isinstance(evicted, Evict)
    assert evicted.tenant in {first, replica.tenant}
    assert b in bench.held


def test_only_so_many_workers_as_are_allowed() -> None:
    rules = Rules(min_stay_s=0.0, stay_per_load=0.0, max_resident=1)
    tiny = Terms(placements=(way(1),))
    bench = Bench(rules, a=tiny, b=tiny)
    a = bench.load("a", 1.0)
    bench.residency.demand("b", 1, 2.0)
    assert bench.decide(2.0)[0] == Evict(a, "a", EvictReason.ROOM, "b")


def test_the_limit_of_devices_holds_for_one_that_was_not_seen_at_the_start() -> None:
    large = Placement(name="gpu", need=Memory(devices={"CUDA0": 8}))
    spread = Placement(name="gpus", need=Memory(devices={"CUDA0": 4, "CUDA1": 4}))
    bench = Bench(
        Rules(min_stay_s=0.0, stay_per_load=0.0, device_limit_bytes=6),
        a=Terms(placements=(large,)),
        b=Terms(placements=(spread,)),
    )
    bench.residency.demand("a", 1, 1.0)
    bench.residency.demand("b", 1, 1.0)
    found = bench.decide(1.0)
    assert [one.model for one in found if isinstance(one, Refuse)] == ["a"]
    assert [one.model for one in found if isinstance(one, Load)] == ["b"]


def test_workers_of_one_file_share_its_mapped_bytes() -> None:
    mapped = Placement(name="host", need=Memory(host_bytes=100, mapped_bytes=500))
    bench = Bench(
        Rules(min_stay_s=0.0, stay_per_load=0.0, limit_bytes={HOST: 800}),
        a=Terms(placements=(mapped,), replicas=3),
        b=Terms(placements=(mapped,)),
    )
    bench.load("a", 1.0)
    replicas = [one for one in bench.decide(2.0) if isinstance(one, Load)]
    assert len(replicas) == 2
    bench.residency.demand("b", 1, 3.0)
    assert all(isinstance(one, Wait) for one in bench.decide(3.0))


def test_a_wait_for_a_load_tells_the_rest_of_its_usual_time() -> None:
    bench = Bench(a=small(load_s=8.0))
    bench.residency.demand("a", 1, 10.0)
    assert isinstance(bench.decide(10.0)[0], Load)
    assert bench.decide(13.0) == (Wait("a", WaitReason.LOADING, 0, 5.0),)
