"""Rounds of the placer over a scripted Ray."""

from collections.abc import Mapping

from supervisor.placer.messages import HostRow, Placed
from supervisor.placer.placing import NotPlaced, Placing


class FakeRay:
    """Nodes by name; each takes one host."""

    def __init__(self, *nodes: str) -> None:
        self.nodes_alive = list(nodes)
        self.hosts: dict[int, str] = {}
        self.joins: list[str] = []
        self.is_away = False
        self.ends: dict[int, str] = {}

    def start(
        self, slot: int, join: str, resources: Mapping[str, float], avoid: frozenset[str]
    ) -> str:
        self.joins.append(join)
        free = [node for node in self.nodes_alive if node not in avoid]
        if self.is_away or not free:
            raise NotPlaced("no node has room")
        self.hosts[slot] = free[0]
        return free[0]

    def end(self, slot: int) -> None:
        self.hosts.pop(slot, None)

    def nodes(self, resources: Mapping[str, float]) -> frozenset[str]:
        return frozenset(self.nodes_alive)

    def ended(self) -> Mapping[int, str]:
        ended, self.ends = self.ends, {}
        return ended

    def die(self, slot: int) -> None:
        del self.hosts[slot]
        self.ends[slot] = "killed"


class Rig:
    def __init__(self, ray: FakeRay, found: Mapping[int, str] | None = None) -> None:
        self.now = 0.0
        self.told: list[Placed] = []
        numbers = iter(range(1000))
        self.placing = Placing(
            ray, found or {}, lambda: f"join {next(numbers)}", self.told.append, lambda: self.now
        )

    def look(self, n_hosts: int, times: int = 1) -> Placed:
        for _ in range(times):
            self.placing.look(n_hosts, {"CPU": 1.0})
        return self.told[-1]


def test_each_host_gets_an_invitation_and_a_node_of_its_own() -> None:
    ray = FakeRay("a", "b", "c")
    rig = Rig(ray)
    assert rig.look(2, times=5).hosts == (HostRow(0, "a"), HostRow(1, "b"))
    assert ray.joins == ["join 0", "join 1"]


def test_a_lost_host_is_placed_on_another_node_until_its_own_is_trusted_again() -> None:
    ray = FakeRay("a", "b", "c")
    rig = Rig(ray)
    rig.look(1)
    for node in "bc":
        ray.die(0)
        assert rig.look(1).hosts == (HostRow(0, node),)
    rig.now = 61.0
    ray.die(0)
    assert rig.look(1).hosts[0].node == "a"


def test_a_host_that_was_lost_on_the_only_node_is_soon_placed_there_again() -> None:
    ray = FakeRay("a")
    rig = Rig(ray)
    rig.look(1)
    ray.die(0)
    assert rig.look(1, times=5).hosts == ()
    assert len(ray.joins) == 1
    rig.now = 1.0
    assert rig.look(1).hosts == (HostRow(0, "a"),)


def test_hosts_of_a_placer_before_are_not_started_again() -> None:
    ray = FakeRay("a", "b")
    ray.hosts = {0: "a", 1: "b"}
    rig = Rig(ray, {0: "a", 1: "b"})
    assert len(rig.look(2, times=3).hosts) == 2
    assert ray.joins == []


def test_while_ray_is_away_nothing_ends_and_nothing_is_placed() -> None:
    ray = FakeRay("a", "b", "c")
    rig = Rig(ray)
    rig.look(1)
    ray.is_away = True
    said = rig.look(2, times=3)
    assert (said.hosts, said.trouble) == ((HostRow(0, "a"),), "no node has room")
    ray.is_away = False
    assert rig.look(2).trouble == ""
    assert ray.hosts == {0: "a", 1: "b"}


def test_it_tells_only_what_has_changed() -> None:
    rig = Rig(FakeRay("a"))
    rig.look(1, times=10)
    assert [len(fact.hosts) for fact in rig.told] == [0, 1]
