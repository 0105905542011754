"""One worker process of the host with its link, from its spawn until it has been reaped."""

import logging
import signal
from collections.abc import Callable

import zmq
from msgspec import Struct, structs

from gpufc import wire as worker_wire
from gpufc.config import ModelConfig
from gpufc.errors import LinkError
from gpufc.ids import Epoch
from gpufc.protocol import Attach, Boot, Ready
from gpufc.wire import Buffer
from supervisor.cluster import wire
from supervisor.cluster.messages import (
    Adoption,
    Ending,
    Exited,
    FromHost,
    Held,
    LinkBroken,
    WorkerVitals,
)
from supervisor.fleet.peer import Peer
from supervisor.fleet.worker_socket import WorkerSocket
from supervisor.worker_host.machine import Machine

logger = logging.getLogger(__name__)


class Front(Struct, frozen=True):
    """The way to the front: a control message, a frame. Both are dropped while there is none."""

    report: Callable[[FromHost], None]
    relay: Callable[[bytes], None]


class HostedWorker:
    """Relays every message of the worker, its hello included. `on_reaped` is called last."""

    def __init__(
        self,
        machine: Machine,
        boot: Boot,
        model: ModelConfig,
        front: Front,
        on_reaped: "Callable[[HostedWorker, str], None]",
    ) -> None:
        """Open the link, spawn, boot. `boot` is the front's; `model` has this machine's paths.

        Raises `OSError`."""
        self.epoch = boot.epoch
        self.name = boot.worker
        self.is_ready = False
        self._machine = machine
        self._front = front
        self._digest = wire.boot_digest(boot)
        self._on_reaped = on_reaped
        self._is_open = True
        self._is_broken = False
        self._is_given_up = False
        self._link = self._open_link(boot.epoch, boot.token)
        self._links = [self._link]
        try:
            self._process = machine.spawn(boot.worker, self._ended, self._ending)
        except BaseException:
            self._link.socket.close()
            raise
        self._link.peer.expect(self.pid)
        here = structs.replace(boot, endpoint=self._link.socket.endpoint, model=model)
        self._process.boot(here)

    @property
    def pid(self) -> int:
        return self._process.pid

    def held(self) -> Held:
        """Its row in a hello."""
        return Held(self.epoch, self.pid, self.name, self._digest)

    def send(self, data: memoryview) -> None:
        """Pass a front's message on."""
        if self._is_open:
            self._link.socket.send(data)

    def signal(self, number: int, *, group: bool) -> None:
        """Send a signal. Does nothing once it has ended."""
        self._process.signal(signal.Signals(number), group=group)

    def kill(self) -> None:
        """End it and its children now."""
        self._process.signal(signal.SIGKILL, group=True)

    def give_up(self) -> None:
        """End it, and report nothing more: the front may have its epoch for another process."""
        self._is_open, self._is_given_up = False, True
        self.kill()

    def close_link(self) -> None:
        """Relay nothing more."""
        self._is_open = False

    def adopt(self, adoption: Adoption) -> None:
        """Have the process begin anew under another epoch, over a new link. Raises `OSError`."""
        fresh = self._open_link(adoption.epoch, adoption.token)
        fresh.peer.expect(self.pid)
        attach = Attach(self.epoch, adoption.epoch, fresh.socket.endpoint, adoption.token)
        self._link.socket.send(worker_wire.encode(attach))
        self.epoch, self.name = adoption.epoch, adoption.worker
        self._is_open, self._is_broken = True, False
        self._link = fresh
        self._links.append(fresh)

    def pause(self, pause: bool) -> None:
        """Leave its messages in the socket, or read them again."""
        reader = self._link.socket.reader
        if pause:
            reader.pause()
        else:
            reader.resume()

    def vitals(self) -> WorkerVitals | None:
        """Its state now; None if it has ended."""
        found = self._process.vitals()
        if found is None:
            return None
        return WorkerVitals(
            self.epoch,
            found.run_state,
            found.cpu_s,
            found.major_faults,
            self._process.rss_bytes(),
            self._process.anonymous_bytes(),
        )

    def _open_link(self, epoch: Epoch, token: str) -> "_Link":
        try:
            return _Link(self, self._machine, epoch, token)
        except zmq.ZMQError as err:
            raise OSError(err.errno, f"cannot bind a worker's link: {err}") from err

    def from_worker(self, link: "_Link", data: Buffer) -> None:
        """Relay a message of the worker, unless it belongs to an earlier adoption: two fronts may
        give the same number to their epochs."""
        if link is not self._link or not self._is_open:
            return
        if not self.is_ready:
            self.is_ready = _is_ready(data)
            if self.is_ready:
                self._process.watch_end()
        self._front.relay(wire.relayed(self.epoch, data))

    def left_links(self, link: "_Link") -> None:
        """The process speaks over this link now: close those of its earlier epochs."""
        for other in self._links:
            if other is not link:
                other.socket.close()
        self._links = [link]

    def link_broke(self, link: "_Link", detail: str) -> None:
        """Say so, once."""
        if link is self._link and self._is_open and not self._is_broken:
            self._is_broken = True
            self._front.report(LinkBroken(self.epoch, detail[:1024]))

    def _ending(self, si_code: int, si_status: int, oom: bool) -> None:
        if self._is_given_up or si_status == signal.SIGABRT:
            return  # the cause of an abort stands in its log, which is not whole yet
        self._link.socket.drain_now()
        self._front.report(Ending(self.epoch, si_code, si_status, oom))

    def _ended(self, si_code: int, si_status: int, oom: bool, log: bytes) -> None:
        for link in self._links:
            link.socket.drain_now()  # its last messages come before its end
            link.socket.close()
        if not self._is_given_up:
            self._front.report(Exited(self.epoch, si_code, si_status, oom, log))
        self._on_reaped(self, _how(si_status, oom))


class _Link:
    """A socket for one epoch of the process. The host proves its peer; the front does so again."""

    def __init__(self, worker: HostedWorker, machine: Machine, epoch: Epoch, token: str) -> None:
        self.peer = Peer(
            epoch,
            token,
            on_message=lambda hello: None,
            on_broken=lambda detail, retryable: worker.link_broke(self, detail),
        )
        self.socket = WorkerSocket(
            machine.context,
            machine.new_socket(),
            admit=self._admit,
            on_message=lambda data: worker.from_worker(self, data),
            on_fault=lambda detail: worker.link_broke(self, detail),
        )
        self._worker = worker

    def _admit(self, data: Buffer) -> bool:
        admitted = self.peer.greet(data)
        if admitted:
            self._worker.left_links(self)
            self._worker.from_worker(self, data)
        return admitted


def _is_ready(data: Buffer) -> bool:
    """Whether a message says that the model is loaded. Called until it does."""
    try:
        return isinstance(worker_wire.decode_from_worker(data), Ready)
    except LinkError:
        return False


def _how(si_status: int, oom: bool) -> str:
    return "out of memory" if oom else f"status {si_status}"
