"""The worker host's rules: what the front's messages do, and when workers end.

    away ──Welcome──▶ attached ──connection lost──▶ away ──lease over──▶ away, without workers
                          └──Leave, SIGTERM──▶ leaving ──▶ ended

Workers outlive a connection until the lease is over: a front that comes back may adopt them. They
never outlive the host (parent-death signal, boot pipe). Everything runs in the event loop's thread,
and nothing waits for the front.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable

from msgspec import Struct

from gpufc import __version__
from gpufc.errors import LinkError
from gpufc.ids import Epoch
from gpufc.protocol import PROTOCOL_VERSION, Boot
from supervisor.cluster.messages import (
    HOST_PROTOCOL,
    LEASE_S,
    MAX_WORKERS,
    Adoption,
    CloseLink,
    DeviceSummary,
    Forgo,
    FromHost,
    HostDevices,
    HostHello,
    HostVitals,
    Lease,
    Leave,
    Leaving,
    Obtain,
    Piece,
    Refused,
    Signal,
    Spawn,
    Spawned,
    SpawnFailed,
    ToHost,
    Welcome,
)
from supervisor.devices.snapshot import Snapshot
from supervisor.worker_host.hosted import Front, HostedWorker
from supervisor.worker_host.library import Library
from supervisor.worker_host.machine import Machine
from supervisor.worker_host.provision import Provision
from supervisor.worker_host.uplink import Uplink

logger = logging.getLogger(__name__)

MAX_DEVICES = 16


class About(Struct, frozen=True):
    """The machine as a hello describes it."""

    machine: str
    cores: int
    memory_bytes: int
    devices: tuple[DeviceSummary, ...] = ()


class Ending(Struct, frozen=True):
    """Why the host process ends."""

    reason: str


class WorkerHost:
    """All workers of this machine, and the lease that they live by.

    `say` tells a person at the terminal. `ended` is set when the front has told the host to leave.
    """

    def __init__(
        self,
        machine: Machine,
        about: About,
        library: Library,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run = secrets.token_hex(8)
        self.name = about.machine
        self.ending: Ending | None = None
        self.changed = asyncio.Event()
        """Set when it was welcomed, refused or told to leave, and when a worker has ended."""
        self._machine = machine
        self._about = about
        self._say = say
        self._clock = clock
        self._workers: dict[Epoch, HostedWorker] = {}
        self._ending_workers: set[HostedWorker] = set()
        self._front_run = ""
        self._uplink: Uplink | None = None
        self.refusal: Refused | None = None
        self.is_attached = False
        self._lease_s = LEASE_S
        self._lease_ends = 0.0
        self._front = Front(self._report, self._relay)
        self._provision = Provision(library, self._report, say)

    # the connection

    @property
    def n_workers(self) -> int:
        """Workers that live, also those that are being killed."""
        return len(self._workers) + len(self._ending_workers)

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait for a condition that changes with `changed`."""
        while not holds():
            self.changed.clear()
            await self.changed.wait()

    @property
    def has_ended(self) -> bool:
        """Whether it was told to end and all its workers have ended."""
        return self.ending is not None and not self.n_workers

    def hello(self, key: str) -> HostHello:
        """The first message of a connection."""
        held = [one.held() for one in self._workers.values() if one.is_ready]
        return HostHello(
            HOST_PROTOCOL,
            PROTOCOL_VERSION,
            __version__,
            self.run,
            key,
            self._about.machine,
            self._about.cores,
            self._about.memory_bytes,
            self._about.devices[:MAX_DEVICES],
            self._front_run,
            tuple(held),
        )

    def connect(self, uplink: Uplink) -> None:
        """Use this connection from now on. It has no welcome yet."""
        self._uplink = uplink
        self.is_attached = False
        self.refusal = None

    def disconnect(self) -> None:
        """The connection is gone. Workers live on until the lease is over; copies end."""
        self._provision.forgo_all()
        self._uplink = None
        self.is_attached = False
        self.pause(False)

    def pause(self, pause: bool) -> None:
        """Read no worker's messages while the front does not read, so that little is queued."""
        for worker in self._workers.values():
            worker.pause(pause)

    # messages of the front

    def take_frame(self, epoch: int, payload: memoryview) -> None:
        """A message for a worker. One for a worker that has ended is dropped."""
        worker = self._workers.get(Epoch(epoch))
        if worker is not None and self.is_attached:
            worker.send(payload)

    def take(self, message: ToHost) -> None:
        """A control message. Raises `LinkError` if it breaks the protocol."""
        if isinstance(message, (Welcome, Refused)):
            if self.is_attached:
                raise LinkError("a second answer to the hello")
            self._answered(message)
            return
        if not self.is_attached:
            raise LinkError(f"{type(message).__name__} before the answer to the hello")
        match message:
            case Lease():
                self._renew()
            case Obtain():
                self._provision.obtain(message)
            case Piece():
                self._provision.take(message)
            case Forgo(epoch):
                self._provision.forgo(epoch)
            case Spawn(boot):
                self._spawn(boot)
            case Signal(epoch, number, group):
                if (worker := self._workers.get(epoch)) is not None:
                    worker.signal(number, group=group)
            case CloseLink(epoch):
                if (worker := self._workers.get(epoch)) is not None:
                    worker.close_link()
            case Leave(reason):
                self.leave(f"the front says: {reason}")

    def leave(self, reason: str) -> None:
        """End the process: its owner ends all workers."""
        if self.ending is None:
            self.ending = Ending(reason)
        self.changed.set()

    def tell_leaving(self, reason: str, drain_s: float) -> None:
        """Ask the front to take its streams elsewhere."""
        self._report(Leaving(reason, drain_s))

    def _answered(self, answer: Welcome | Refused) -> None:
        if isinstance(answer, Refused):
            self.refusal = answer
        else:
            self.is_attached = True
            self.name = answer.machine
            self._front_run = answer.front_run
            self._lease_s = answer.lease_s
            self._renew()
            self._adopt(answer.adopt)
        self.changed.set()

    def _adopt(self, adoptions: tuple[Adoption, ...]) -> None:
        """Go on with held workers under new epochs. Kill the others: the front gave them up."""
        held = {worker.pid: worker for worker in self._workers.values()}
        self._workers = {}
        for adoption in adoptions:
            worker = held.pop(adoption.pid, None)
            if worker is None or not worker.is_ready:
                self._report(SpawnFailed(adoption.epoch, 0, "the process has ended meanwhile"))
                continue
            try:
                worker.adopt(adoption)
            except OSError as err:
                self._failed(adoption.epoch, err)
                held[worker.pid] = worker
                continue
            self._workers[worker.epoch] = worker
            self._report(Spawned(worker.epoch, worker.pid))
            self._say(f"worker {worker.name} goes on (pid {worker.pid})")
        self._give_up(held.values())

    def _spawn(self, boot: Boot) -> None:
        if boot.epoch in self._workers:
            raise LinkError(f"epoch {boot.epoch} runs already")
        if self.n_workers >= MAX_WORKERS:
            self._report(SpawnFailed(boot.epoch, 0, f"{MAX_WORKERS} workers run already"))
            return
        model = self._provision.here(boot.epoch, boot.model)
        try:
            worker = HostedWorker(self._machine, boot, model, self._front, self._reaped)
        except (OSError, LinkError) as err:
            self._failed(boot.epoch, err)
            return
        self._workers[boot.epoch] = worker
        self._report(Spawned(boot.epoch, worker.pid))
        self._say(f"worker {worker.name} runs (pid {worker.pid})")

    def _failed(self, epoch: Epoch, err: Exception) -> None:
        number = err.errno or 0 if isinstance(err, OSError) else 0
        logger.warning("spawn_failed epoch=%d: %s", epoch, err)
        self._report(SpawnFailed(epoch, number, str(err)[:1024]))

    # time

    def look(self) -> None:
        """Report the workers' vitals, and end them if the lease is over."""
        if self.is_attached and self._uplink is not None and not self._uplink.is_full:
            rows = (worker.vitals() for worker in self._workers.values())
            self._report(HostVitals(tuple(row for row in rows if row is not None)))
            self._provision.look()
        if not self.is_lease_over:
            return
        self.changed.set()
        if self._workers:
            self._say(f"no lease for {self._lease_s:g} s: {len(self._workers)} workers end")
            self._give_up(list(self._workers.values()))
            self._workers = {}

    @property
    def is_lease_over(self) -> bool:
        """Whether the front has not renewed the lease in time."""
        return self._clock() > self._lease_ends

    def report_devices(self, snapshot: Snapshot) -> None:
        """Send the machine's figures."""
        if self._uplink is not None and not self._uplink.is_full:
            self._report(HostDevices(snapshot))

    def kill_all(self) -> None:
        """End all workers now. Their ends are reported."""
        for worker in (*self._workers.values(), *self._ending_workers):
            worker.kill()

    def _renew(self) -> None:
        self._lease_ends = self._clock() + self._lease_s

    # what workers do

    def _give_up(self, workers: Iterable[HostedWorker]) -> None:
        for worker in workers:
            self._ending_workers.add(worker)
            worker.give_up()

    def _reaped(self, worker: HostedWorker, how: str) -> None:
        if worker in self._ending_workers:
            self._ending_workers.discard(worker)
        else:
            self._workers.pop(worker.epoch, None)
        self._say(f"worker {worker.name} has ended ({how})")
        self.changed.set()

    def _report(self, message: FromHost) -> None:
        if self._uplink is not None and self.is_attached:
            try:
                self._uplink.send(message)
            except LinkError:
                logger.exception("report_too_large kind=%s", type(message).__name__)

    def _relay(self, frame: bytes) -> None:
        if self._uplink is not None and self.is_attached:
            self._uplink.send_raw(frame)
