"""The machines that have joined a front, with the processes that its fleet has on them.

Implements `cluster.port.Hosts` for the listener and `edge.MachinePort` for the lines of workers.
`hosts.Hosts` decides which machine a process gets. In the event loop's thread.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence

from msgspec import Struct

from gpufc.ids import Epoch
from supervisor.cluster.messages import (
    Adoption,
    AskPiece,
    Ending,
    Exited,
    FromHost,
    Held,
    HostDevices,
    HostHello,
    HostVitals,
    Lacking,
    Leave,
    Leaving,
    LinkBroken,
    NotObtained,
    Obtained,
    Obtaining,
    Spawned,
    SpawnFailed,
)
from supervisor.cluster.port import HostChannel
from supervisor.devices.snapshot import Snapshot
from supervisor.fleet.exit_reason import Reason
from supervisor.remote.edge import Adopted, Found, RemoteEdge, Seeker
from supervisor.remote.hosts import Hosts, Wish
from supervisor.remote.link import RemoteLink
from supervisor.remote.process import RemoteProcess
from supervisor.remote.supply import Supply, SupplyListener

logger = logging.getLogger(__name__)


class Running(Struct, frozen=True):
    """A process that its host knows by its epoch, or will."""

    process: RemoteProcess
    link: RemoteLink


class Preparing(Struct):
    """A line whose machine gets the model's files. `text` says how it goes."""

    seeker: Seeker
    channel: HostChannel
    text: str = ""


class Joined:
    """One machine's connection, and the processes on it. `Machines` owns it."""

    def __init__(self, channel: HostChannel) -> None:
        self.channel = channel
        self.running: dict[Epoch, Running] = {}
        self.is_leaving = False
        """It ends once it has no process."""
        self.devices: Snapshot | None = None


class Machines:
    """All machines by name. `wants_rest` is called for a machine that leaves and has workers."""

    def __init__(
        self,
        workers_per_machine: int,
        silence_s: float,
        clock: Callable[[], float] = time.monotonic,
        supply: Supply | None = None,
    ) -> None:
        """`supply` has the files of models for hosts."""
        self.hosts = Hosts(workers_per_machine)
        self._supply = supply or Supply()
        self.joined_now: dict[str, Joined] = {}
        self.wants_rest: Callable[[str], None] = lambda machine: None
        self.wants_line: Callable[[str], bool] = lambda worker: False
        """Is called with the name of a worker that a host still has, and that no line seeks.
        Whether one will seek it soon."""
        self._silence_s = silence_s
        self._clock = clock
        self._seekers: dict[Epoch, Seeker] = {}
        self._preparing: dict[Epoch, Preparing] = {}
        self._choose_from = 0.0
        self._awaited: set[str] = set()
        """The workers whose lines will be there soon."""
        self._is_due = False
        self._timer: asyncio.TimerHandle | None = None

    def edge(self) -> RemoteEdge:
        """A new line's."""
        return RemoteEdge(self)

    def close(self) -> None:
        """After the lines have ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._supply.close()

    def prepared_on(self, machine: str) -> list[str]:
        """The progress of files that a machine gets, for people."""
        found = self._preparing.values()
        return [one.text for one in found if one.channel.machine == machine and one.text]

    def changed(self) -> None:
        """A machine may have room now that had none."""
        self._look_soon()

    def await_return(self, seconds: float) -> None:
        """For so long a line gets only the worker that a host brings back to it. Otherwise an idle
        machine that joins first would load what another machine still has."""
        self._choose_from = self._clock() + seconds
        self._look_soon()

    # of the listener (`cluster.port.Hosts`)

    def is_early(self, hello: HostHello) -> bool:
        """A front that was killed had models that are loaded on demand. The front after it has no
        line for them; it makes one for each that a host brings back, while hosts come back."""
        if self._clock() >= self._choose_from:
            return False
        seeking = [*self._seekers.values(), *(one.seeker for one in self._preparing.values())]
        sought = {seeker.spec.name for seeker in seeking}
        unsought = {held.worker for held in hello.held} - sought
        self._awaited |= {worker for worker in unsought if self.wants_line(worker)}
        return not self._awaited.isdisjoint(unsought)

    def joined(self, channel: HostChannel) -> Sequence[Adoption]:
        name, hello = channel.machine, channel.hello
        n_gpus = sum(one.kind != "cpu" for one in hello.devices)
        self.hosts.joined(name, n_gpus, is_new=channel.is_new)
        self.joined_now[name] = Joined(channel)
        found = [self._adopted(channel, held) for held in hello.held]
        self._look_soon()
        return [one for one in found if one is not None]

    def message(self, channel: HostChannel, message: FromHost) -> None:
        joined = self.joined_now.get(channel.machine)
        if joined is None or joined.channel is not channel:
            return
        match message:
            case HostVitals():
                for vitals in message.workers:
                    if (running := joined.running.get(vitals.epoch)) is not None:
                        running.process.seen(vitals)
            case HostDevices():
                joined.devices = message.snapshot
            case Leaving() if not joined.is_leaving:
                logger.info("host_leaving machine=%s: %s", channel.machine, message.reason)
                joined.is_leaving = True
                self.hosts.drain(channel.machine, is_drained=True)
                self._rest(joined)
            case Spawned() | SpawnFailed() | Ending() | Exited() | LinkBroken():
                self._of_process(joined, message)
            case Lacking() | Obtaining() | Obtained() | NotObtained() | AskPiece():
                self._supply.message(channel, message)
            case _:
                pass

    def lost(self, channel: HostChannel, reason: str) -> None:
        name = channel.machine
        joined = self.joined_now.get(name)
        if joined is None or joined.channel is not channel:
            return
        now = self._clock()
        is_silent = now - channel.heard_at > self._silence_s
        del self.joined_now[name]
        for epoch in [one for one, its in self._preparing.items() if its.channel is channel]:
            self._seek_again(epoch)
        self.hosts.lost(name, reason, now, was_leaving=joined.is_leaving)
        for running in joined.running.values():
            cause = Reason.NODE_LOST if is_silent else Reason.HOST_LOST
            running.process.lost(cause, f"{name}: {reason}")
        self._look_soon()

    # of the edges (`edge.MachinePort`)

    def seek(self, epoch: Epoch, seeker: Seeker) -> None:
        self._seekers[epoch] = seeker
        self._look_soon()

    def withdraw(self, epoch: Epoch) -> None:
        self._seekers.pop(epoch, None)
        if self._preparing.pop(epoch, None) is not None:
            self._supply.end(epoch)
        self._release(epoch)

    def avoid(self, machine: str, model: str, reason: str) -> None:
        self.hosts.unfit(machine, model, reason, self._clock())

    def runs(self, epoch: Epoch, process: RemoteProcess, link: RemoteLink) -> None:
        place = self.hosts.place_of(epoch)
        if place is None:
            raise AssertionError("a process without a place")
        self.joined_now[place.machine].running[epoch] = Running(process, link)

    # processes

    def _of_process(
        self, joined: Joined, message: Spawned | SpawnFailed | Ending | Exited | LinkBroken
    ) -> None:
        running = joined.running.get(message.epoch)
        if running is None:
            return
        match message:
            case Spawned():
                running.process.spawned(message.pid)
            case LinkBroken():
                running.link.fail(message.detail)
            case Ending():
                running.process.ending(message)
            case SpawnFailed():
                self._forget(joined, message.epoch)
                running.process.not_spawned(message)
            case Exited():
                self._forget(joined, message.epoch)
                running.process.exited(message)

    def _forget(self, joined: Joined, epoch: Epoch) -> None:
        del joined.running[epoch]
        self._release(epoch)
        if joined.is_leaving and not joined.running:
            joined.channel.send(Leave("its workers have moved"))

    def _release(self, epoch: Epoch) -> None:
        self.hosts.release(epoch)
        self._look_soon()

    def _adopted(self, channel: HostChannel, held: Held) -> Adoption | None:
        """Go on with a process that a line waits for; None for one that no line wants."""
        name = channel.machine
        preparing = {epoch: one.seeker for epoch, one in self._preparing.items()}
        for epoch, seeker in (self._seekers | preparing).items():
            if seeker.spec.name != held.worker or epoch == held.epoch:
                continue  # in an equal epoch, its late messages would count as new ones
            wish = Wish(epoch, seeker.spec.model)
            for slot in self.hosts.free_slots(name):
                devices = self.hosts.devices_of(name, slot)
                if seeker.digest(devices) != held.digest:
                    continue
                if epoch in preparing:
                    self._seek_again(epoch)
                self.hosts.put(wish, name, slot)
                adopted = Adopted(held.pid, secrets.token_hex(16), [])
                channel.listen(epoch, adopted.early.append)
                del self._seekers[epoch]
                logger.info("worker_adopted worker=%s machine=%s", held.worker, name)
                seeker.found(Found(channel, devices, adopted))
                return Adoption(held.pid, epoch, held.worker, adopted.token)
        return None

    def _rest(self, joined: Joined) -> None:
        if joined.running:
            self.wants_rest(joined.channel.machine)
        else:
            joined.channel.send(Leave("it has no worker"))

    # the search for machines

    def _look_soon(self) -> None:
        """Look for machines after this turn of the loop: a machine may be lost with many."""
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._is_due = False
        now = self._clock()
        for epoch, one in list(self._preparing.items()):
            if self.hosts.machines[one.channel.machine].is_drained:
                self._seek_again(epoch)
        if now < self._choose_from:
            for seeker in self._seekers.values():
                seeker.awaits("waiting for its machine to come back")
            self._wake_at(self._choose_from)
            return
        for epoch, seeker in list(self._seekers.items()):
            wish = Wish(epoch, seeker.spec.model)
            place = self.hosts.choose(wish, now)
            if place is None:
                seeker.awaits(self.hosts.awaited(wish, now))
                continue
            self._prepare(epoch, self._seekers.pop(epoch), place.machine)
        self._wake_at(self.hosts.next_at(now) if self._seekers else None)

    # the files of models

    def _prepare(self, epoch: Epoch, seeker: Seeker, machine: str) -> None:
        """Have a machine obtain the model's files. Room on it is reserved."""
        channel = self.joined_now[machine].channel
        one = self._preparing[epoch] = Preparing(seeker, channel)

        def ready() -> None:
            place = self.hosts.place_of(epoch)
            if self._preparing.pop(epoch, None) is not None and place is not None:
                seeker.found(Found(channel, self.hosts.devices(place)))

        def progress(text: str) -> None:
            one.text = text
            seeker.prepares(f"{machine}: {text}")

        def failed(text: str) -> None:
            self.hosts.unfit(machine, seeker.spec.model, text, self._clock())
            self._seek_again(epoch)

        listener, spec = SupplyListener(ready, progress, failed), seeker.spec
        self._supply.begin(channel, epoch, spec.config, listener, spec.within)

    def _seek_again(self, epoch: Epoch) -> None:
        """Give the reserved room up, and look for a machine anew."""
        one = self._preparing.pop(epoch, None)
        if one is not None:
            self._supply.end(epoch)
            self._seekers[epoch] = one.seeker
            self._release(epoch)

    def _wake_at(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            delay_s = max(0.0, at - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._look_soon)
