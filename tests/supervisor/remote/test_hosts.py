"""Which machine a process gets, and which machines get none."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gpufc.ids import Epoch
from supervisor.remote.hosts import SHUN_S, UNFIT_S, Hosts, MachineState, Place, Wish


def wish(epoch: int, model: str = "m") -> Wish:
    return Wish(Epoch(epoch), model)


def joined(*names: str, workers_per_machine: int = 2, n_gpus: int = 0) -> Hosts:
    hosts = Hosts(workers_per_machine)
    for name in names:
        hosts.joined(name, n_gpus)
    return hosts


def machine_of(hosts: Hosts, wanted: Wish, now: float = 0.0) -> str | None:
    place = hosts.choose(wanted, now)
    return place.machine if place else None


def test_a_models_workers_are_spread_before_machines_are_filled() -> None:
    hosts = joined("a", "b", "c")
    assert [machine_of(hosts, wish(n)) for n in range(1, 7)] == ["a", "b", "c", "a", "b", "c"]
    assert machine_of(hosts, wish(7)) is None


def test_spread_comes_before_load() -> None:
    hosts = joined("a", "b", workers_per_machine=3)
    hosts.put(wish(1, "other"), "a")
    hosts.put(wish(2, "other"), "a")
    hosts.put(wish(3), "b")
    assert machine_of(hosts, wish(4)) == "a"
    assert machine_of(hosts, wish(5, "third")) == "b"


def test_without_a_machine_it_says_so() -> None:
    hosts = joined()
    assert hosts.choose(wish(1), 0.0) is None
    assert hosts.awaited(wish(1), 0.0) == "waiting for a machine: none has joined"


def test_what_is_awaited_names_each_machine() -> None:
    hosts = joined("a", "b", "c", "d", workers_per_machine=1)
    hosts.put(wish(1), "a")
    hosts.drain("b", is_drained=True)
    hosts.lost("c", "no message for 5.0 s", 0.0)
    hosts.unfit("d", "m", "/m.gguf: no such file", 0.0)
    assert hosts.choose(wish(3), 1.0) is None
    assert hosts.awaited(wish(3), 1.0) == (
        "waiting for a machine with room (a: has 1 of 1 workers; b: drained; c: lost;"
        " d: /m.gguf: no such file)"
    )


def test_a_model_that_no_joined_machine_can_load_is_told_from_a_lack_of_room() -> None:
    hosts = joined("a", "b", "c")
    hosts.lost("c", "the connection was closed", 0.0)
    hosts.unfit("a", "m", "/m.gguf: no such file", 0.0)
    hosts.unfit("b", "m", "/m.gguf: no such file", 0.0)
    assert hosts.awaited(wish(1), 1.0) == (
        "no machine that has joined can run m (a: /m.gguf: no such file; b: /m.gguf: no such file;"
        " c: lost)"
    )
    assert hosts.machines["a"].explained(1.0) == "/m.gguf: no such file"
    assert hosts.machines["a"].explained(UNFIT_S) == ""


def test_each_state_that_keeps_workers_away_is_explained() -> None:
    hosts = joined("a")
    assert hosts.machines["a"].explained(0.0) == ""
    hosts.lost("a", "the connection was closed", 10.0)
    assert hosts.machines["a"].explained(11.0) == "the connection was closed"
    hosts.joined("a", 0)
    assert hosts.machines["a"].explained(11.0) == (
        "was lost; gets workers in 59 s, or now if no other machine may"
    )
    hosts.drain("a", is_drained=True)
    assert hosts.machines["a"].explained(11.0) == "gets no workers until `hosts drain --undo`"


def test_a_lost_machine_is_shunned_after_it_has_come_back() -> None:
    hosts = joined("a", "b")
    hosts.put(wish(1), "a")
    hosts.lost("a", "the connection was closed", 10.0)
    assert hosts.place_of(Epoch(1)) is None
    assert hosts.machines["a"].state(11.0) is MachineState.LOST
    hosts.joined("a", 0)
    assert hosts.machines["a"].state(11.0) is MachineState.SHUNNED
    assert [machine_of(hosts, wish(n), 11.0) for n in (2, 3, 4)] == ["b", "b", None]
    assert hosts.next_at(11.0) == 10.0 + SHUN_S
    assert machine_of(hosts, wish(5), 10.0 + SHUN_S) == "a"


def test_a_lost_machine_is_used_at_once_where_no_other_one_may_have_the_process() -> None:
    hosts = joined("a")
    hosts.put(wish(1), "a")
    hosts.lost("a", "the connection was closed", 10.0)
    hosts.joined("a", 0)
    assert hosts.machines["a"].state(11.0) is MachineState.SHUNNED
    assert machine_of(hosts, wish(2), 11.0) == "a"


def test_a_new_host_on_a_lost_machine_is_not_shunned() -> None:
    hosts = joined("a", "b")
    hosts.lost("a", "the connection was closed", 10.0)
    hosts.joined("a", 0, is_new=True)
    assert hosts.machines["a"].state(11.0) is MachineState.JOINED
    assert hosts.machines["a"].n_losses == 1


@pytest.mark.parametrize("why", ["lost", "drained", "unfit", "shunned"])
def test_a_machine_that_may_not_have_the_process_is_no_other_choice(why: str) -> None:
    hosts = joined("a", "b")
    for name in "ab" if why == "shunned" else "a":
        hosts.lost(name, "the connection was closed", 10.0)
        hosts.joined(name, 0)
    match why:
        case "lost":
            hosts.lost("b", "the connection was closed", 10.0)
        case "drained":
            hosts.drain("b", is_drained=True)
        case "unfit":
            hosts.unfit("b", "m", "no such file", 10.0)
    assert machine_of(hosts, wish(2), 11.0) == "a"


def test_a_full_machine_is_another_choice() -> None:
    """Its streams go on there: a machine that may go again is not needed at once."""
    hosts = joined("a", "b", workers_per_machine=1)
    hosts.put(wish(1), "b")
    hosts.lost("a", "the connection was closed", 10.0)
    hosts.joined("a", 0)
    assert machine_of(hosts, wish(2), 11.0) is None
    assert hosts.awaited(wish(2), 11.0) == (
        "waiting for a machine with room (a: shunned; b: has 1 of 1 workers)"
    )


def test_a_machine_that_left_on_request_is_trusted_when_it_comes_back() -> None:
    hosts = joined("a")
    hosts.drain("a", is_drained=True)
    hosts.lost("a", "left", 10.0, was_leaving=True)
    hosts.joined("a", 0)
    assert machine_of(hosts, wish(1), 11.0) == "a"


def test_a_drained_machine_stays_drained_over_a_loss_of_its_connection() -> None:
    hosts = joined("a")
    hosts.drain("a", is_drained=True)
    hosts.lost("a", "the connection was closed", 0.0)
    hosts.joined("a", 0)
    assert hosts.machines["a"].state(9e9) is MachineState.DRAINED
    hosts.drain("a", is_drained=False)
    assert machine_of(hosts, wish(1), 0.0) == "a"


def test_a_machine_without_the_file_is_tried_for_other_models() -> None:
    hosts = joined("a")
    hosts.unfit("a", "m", "no such file", 0.0)
    assert machine_of(hosts, wish(2)) is None
    assert machine_of(hosts, wish(3, "other")) == "a"
    assert machine_of(hosts, wish(4), UNFIT_S) == "a"


def test_a_machine_that_joins_again_is_tried_again() -> None:
    hosts = joined("a")
    hosts.unfit("a", "m", "no such file", 0.0)
    hosts.joined("a", 0)
    assert machine_of(hosts, wish(2)) == "a"


def test_each_worker_of_a_machine_gets_its_share_of_the_gpus() -> None:
    hosts = joined("a", workers_per_machine=2, n_gpus=5)
    assert hosts.devices(Place("a", 0)) == "CUDA0,CUDA2,CUDA4"
    assert hosts.devices(Place("a", 1)) == "CUDA1,CUDA3"


def test_one_worker_gets_all_devices_and_so_does_each_where_they_do_not_suffice() -> None:
    assert joined("a", workers_per_machine=1, n_gpus=4).devices(Place("a", 0)) is None
    assert joined("a", workers_per_machine=4, n_gpus=1).devices(Place("a", 3)) is None


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens to machines and processes, a process has one place or none."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts = Hosts(2)
        self.now = 0.0
        self.n = 0

    names = st.sampled_from("abc")

    @rule(name=names)
    def joins(self, name: str) -> None:
        self.hosts.joined(name, 0)

    @rule(name=names, was_leaving=st.booleans())
    def is_lost(self, name: str, was_leaving: bool) -> None:
        if name in self.hosts.machines:
            self.hosts.lost(name, "gone", self.now, was_leaving=was_leaving)

    @rule(name=names, is_drained=st.booleans())
    def drains(self, name: str, is_drained: bool) -> None:
        if name in self.hosts.machines:
            self.hosts.drain(name, is_drained=is_drained)

    @rule(name=names)
    def is_forgotten(self, name: str) -> None:
        if name in self.hosts.machines:
            self.hosts.forget(name)

    @rule(model=st.sampled_from(["m", "n"]))
    def wants(self, model: str) -> None:
        self.n += 1
        wanted = wish(self.n, model)
        place = self.hosts.choose(wanted, self.now)
        if place is None:
            assert self.hosts.awaited(wanted, self.now)
        else:
            state = self.hosts.machines[place.machine].state(self.now)
            assert state is MachineState.JOINED or (
                state is MachineState.SHUNNED and not self._has_trusted(model)
            )

    def _has_trusted(self, model: str) -> bool:
        return any(
            one.state(self.now) is MachineState.JOINED
            and self.now >= one.unfit.get(model, (0.0, ""))[0]
            for one in self.hosts.machines.values()
        )

    @rule(epoch=st.integers(1, 20))
    def ends(self, epoch: int) -> None:
        self.hosts.release(Epoch(epoch))

    @rule(name=names, model=st.sampled_from(["m", "n"]))
    def is_unfit(self, name: str, model: str) -> None:
        self.hosts.unfit(name, model, "no such file", self.now)

    @rule(seconds=st.floats(0.0, 100.0))
    def passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def each_place_is_a_slot(self) -> None:
        slots = {
            one.epoch: Place(machine.name, slot)
            for machine in self.hosts.machines.values()
            for slot, one in machine.slots.items()
        }
        assert slots == self.hosts._places
        assert all(len(machine.slots) <= 2 for machine in self.hosts.machines.values())
        assert not any(
            machine.slots for machine in self.hosts.machines.values() if not machine.is_joined
        )


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(stateful_step_count=40, max_examples=60)
