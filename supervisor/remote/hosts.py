"""Which machines have joined, what room they have, and which process runs on which. Pure.

A process is named by its epoch. `Hosts` reserves room for it before it is started, and keeps the
room until it has ended. Time is an argument.
"""

from collections.abc import Iterator, Set
from enum import StrEnum

from msgspec import Struct

from gpufc.ids import Epoch

SHUN_S = 60.0
"""A machine that was lost gets no process for so long after it has come back, if another one may
have it: it may go again."""

UNFIT_S = 60.0
"""So long a machine is not tried again for a model that it could not start."""


class MachineState(StrEnum):
    """Whether a machine gets processes. The words of `/stats`."""

    JOINED = "joined"
    SHUNNED = "shunned"
    """Back after a loss, and not trusted with new processes yet."""
    DRAINED = "drained"
    """An operator wants no process on it, or it leaves."""
    LOST = "lost"
    AWAY = "away"
    """It has joined an earlier front, but not this one yet."""


class Wish(Struct, frozen=True):
    """A process that needs a machine. Processes of one `model` are spread over machines."""

    epoch: Epoch
    model: str


class Place(Struct, frozen=True):
    """Room on a machine. `slot` counts its processes from 0."""

    machine: str
    slot: int


class Machine(Struct):
    """One machine that has joined since the front was started. Only `Hosts` changes it."""

    name: str
    n_gpus: int
    is_joined: bool = True
    is_drained: bool = False
    shunned_until: float = 0.0
    lost_because: str = ""
    n_losses: int = 0
    slots: dict[int, Wish] = {}
    unfit: dict[str, tuple[float, str]] = {}
    """Model → until when it is not tried again, and why."""

    def state(self, now: float) -> MachineState:
        if not self.is_joined:
            return MachineState.LOST
        if self.is_drained:
            return MachineState.DRAINED
        return MachineState.SHUNNED if now < self.shunned_until else MachineState.JOINED

    def explained(self, now: float) -> str:
        """The reason for its state, for people; empty for an ordinary one."""
        match self.state(now):
            case MachineState.LOST:
                return self.lost_because
            case MachineState.SHUNNED:
                seconds = f"{self.shunned_until - now:.0f} s"
                return f"was lost; gets workers in {seconds}, or now if no other machine may"
            case MachineState.DRAINED:
                return "gets no workers until `hosts drain --undo`"
            case _:
                return "; ".join(why for until, why in self.unfit.values() if now < until)


class Hosts:
    """The machines by name. Invariant: each epoch has at most one place, on a joined machine."""

    def __init__(self, workers_per_machine: int) -> None:
        self.machines: dict[str, Machine] = {}
        self.trouble = ""
        """Why a cluster runs fewer hosts than it should, for people."""
        self._n_slots = workers_per_machine
        self._places: dict[Epoch, Place] = {}

    # machines

    def joined(self, name: str, n_gpus: int, *, is_new: bool = False) -> None:
        """A machine is there. One that was lost stays shunned, unless an operator or a cluster has
        put a new host on it; a drained one stays drained."""
        machine = self.machines.setdefault(name, Machine(name, n_gpus))
        if is_new:
            machine.shunned_until = 0.0
        machine.n_gpus, machine.is_joined, machine.lost_because = n_gpus, True, ""
        machine.unfit.clear()

    def lost(self, name: str, reason: str, now: float, *, was_leaving: bool = False) -> None:
        """A machine is gone, with all its processes. One that left on request is not shunned."""
        machine = self.machines[name]
        machine.is_joined, machine.lost_because = False, reason
        for wish in machine.slots.values():
            del self._places[wish.epoch]
        machine.slots.clear()
        if was_leaving:
            machine.is_drained = False
        else:
            machine.shunned_until = now + SHUN_S
            machine.n_losses += 1

    def drain(self, name: str, *, is_drained: bool) -> None:
        """Put no new process on a machine, or allow it again. Raises `KeyError`."""
        machine = self.machines[name]
        machine.is_drained = is_drained
        if not is_drained:
            machine.shunned_until = 0.0

    def forget(self, name: str) -> None:
        """Forget a machine that is not there. Raises `KeyError`."""
        if not self.machines[name].is_joined:
            del self.machines[name]

    # processes

    def choose(self, wish: Wish, now: float) -> Place | None:
        """Reserve room: on the machine with the fewest processes of the model, then with the fewest
        of all. None if no machine has room."""
        usable = self._usable(wish, now)
        free = [one for one in self.machines.values() if self._fits(one, wish, now, usable)]
        if not free:
            return None
        best = min(free, key=lambda machine: (*_load(machine, wish.model), machine.name))
        return self.put(wish, best.name)

    def put(self, wish: Wish, name: str, slot: int | None = None) -> Place:
        """Reserve room on a joined machine, for a process that may run there already. The slot must
        be free."""
        machine = self.machines[name]
        if slot is None:
            slot = next(
                number for number in range(len(machine.slots) + 1) if number not in machine.slots
            )
        machine.slots[slot] = wish
        place = self._places[wish.epoch] = Place(name, slot)
        return place

    def place_of(self, epoch: Epoch) -> Place | None:
        return self._places.get(epoch)

    def free_slots(self, name: str) -> list[int]:
        """Those of a machine, whether or not it gets new processes."""
        taken = self.machines[name].slots
        return [number for number in range(self._n_slots) if number not in taken]

    def release(self, epoch: Epoch) -> None:
        """A process has ended, or was never started. May be called again."""
        place = self._places.pop(epoch, None)
        if place is not None:
            del self.machines[place.machine].slots[place.slot]

    def unfit(self, name: str, model: str, reason: str, now: float) -> None:
        """A machine could not start a process: it is not tried again for the model for a while."""
        if name in self.machines:
            self.machines[name].unfit[model] = (now + UNFIT_S, reason)

    def devices(self, place: Place) -> str | None:
        """The GPUs of a place by ggml's names, where a machine's GPUs are shared out; else None."""
        return self.devices_of(place.machine, place.slot)

    def devices_of(self, name: str, slot: int) -> str | None:
        """The same of a machine's slot."""
        machine = self.machines[name]
        if self._n_slots == 1 or machine.n_gpus < self._n_slots:
            return None
        mine = range(slot, machine.n_gpus, self._n_slots)
        return ",".join(f"CUDA{number}" for number in mine) or None

    # questions

    def awaited(self, wish: Wish, now: float) -> str:
        """What a process waits for that no machine has room for, for people."""
        known = [f"{machine.name}: {why}" for machine, why in self._reasons(wish, now)]
        if not known:
            return "waiting for a machine: " + (self.trouble or "none has joined")
        if self.trouble:
            known.insert(0, self.trouble)
        shown = "; ".join(known[:4]) + (f"; and {len(known) - 4} more" if len(known) > 4 else "")
        joined = [machine for machine in self.machines.values() if machine.is_joined]
        if joined and all(self._is_unfit(machine, wish, now) for machine in joined):
            return f"no machine that has joined can run {wish.model} ({shown})"
        return f"waiting for a machine with room ({shown})"

    def next_at(self, now: float) -> float | None:
        """When a machine may take processes again without any other event."""
        times = [
            at
            for machine in self.machines.values()
            if machine.is_joined
            for at in (machine.shunned_until, *(until for until, _ in machine.unfit.values()))
        ]
        return min((at for at in times if at > now), default=None)

    def _usable(self, wish: Wish, now: float) -> Set[MachineState]:
        """The states in which a machine gets this process. A shunned one does if there is no other
        machine that may have it, full ones included: nothing is gained by waiting then."""
        trusted = frozenset({MachineState.JOINED})
        has_choice = any(
            machine.state(now) in trusted and not self._is_unfit(machine, wish, now)
            for machine in self.machines.values()
        )
        return trusted if has_choice else trusted | {MachineState.SHUNNED}

    def _fits(self, machine: Machine, wish: Wish, now: float, usable: Set[MachineState]) -> bool:
        has_room = len(machine.slots) < self._n_slots
        return machine.state(now) in usable and has_room and not self._is_unfit(machine, wish, now)

    def _is_unfit(self, machine: Machine, wish: Wish, now: float) -> bool:
        until, _ = machine.unfit.get(wish.model, (0.0, ""))
        return now < until

    def _reasons(self, wish: Wish, now: float) -> Iterator[tuple[Machine, str]]:
        """Why each machine gets no process of this model."""
        usable = self._usable(wish, now)
        for machine in sorted(self.machines.values(), key=lambda one: one.name):
            state = machine.state(now)
            if state not in usable:
                yield machine, state.value
            elif self._is_unfit(machine, wish, now):
                yield machine, machine.unfit[wish.model][1]
            else:
                yield machine, f"has {len(machine.slots)} of {self._n_slots} workers"


def _load(machine: Machine, model: str) -> tuple[int, int]:
    of_model = sum(wish.model == model for wish in machine.slots.values())
    return of_model, len(machine.slots)
