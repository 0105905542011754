"""One worker process on another machine, as its host reports it."""

import asyncio
import logging
import resource
import time
from collections.abc import Callable
from signal import Signals

from msgspec import structs

from gpufc.ids import Epoch
from gpufc.protocol import Boot
from supervisor.cluster.messages import Ending, Exited, Signal, Spawn, SpawnFailed, WorkerVitals
from supervisor.cluster.port import HostChannel
from supervisor.fleet.edge import ExitListener
from supervisor.fleet.exit_reason import ExitReason, Reason, classify, device_memory
from supervisor.fleet.followed import Lent
from supervisor.fleet.watchdog import Vitals

logger = logging.getLogger(__name__)

UNENDED_S = 15.0
"""A process that has not ended so long after SIGKILL is given up: its driver or its host hangs."""


class RemoteProcess:
    """From the decision to start it until its host has reported its end, or is lost.

    Implements `edge.Process`. After `on_exit` has been called, every method does nothing.
    """

    def __init__(
        self,
        channel: HostChannel,
        epoch: Epoch,
        on_exit: ExitListener,
        on_pid: Callable[[int], None],
        *,
        on_ending: ExitListener = lambda reason: None,
        pid: int | None = None,
        devices: str | None = None,
    ) -> None:
        """`pid` is that of a running process, which needs no boot message. `devices` are the GPUs
        of its place on the machine, for a model that names none."""
        self.machine: str | None = channel.machine
        self.pid = pid
        self.log = b""
        """The end of what it wrote, once it has ended."""
        self._channel = channel
        self._epoch = epoch
        self._on_exit = on_exit
        self._on_ending = on_ending
        self._on_pid = on_pid
        self._is_running = True
        self._is_adopted = pid is not None
        self._devices = devices
        self._seen: WorkerVitals | None = None
        self._unended: asyncio.TimerHandle | None = None

    # of the port

    def boot(self, boot: Boot) -> None:
        """Have it started. Raises `LinkError` if the message is too large."""
        if not self._is_adopted:
            self._channel.send(Spawn(on_devices(boot, self._devices)))

    def signal(self, number: Signals, *, group: bool = False) -> None:
        """Send a signal to it, or with `group` also to its children."""
        if self._is_running:
            self._channel.send(Signal(self._epoch, int(number), group))
            if number is Signals.SIGKILL and self._unended is None:
                loop = asyncio.get_running_loop()
                self._unended = loop.call_later(UNENDED_S, self._is_unended)

    def vitals(self) -> Vitals | None:
        """Its last known state; None before the host has sent any."""
        seen = self._seen
        if seen is None:
            return None
        pages = seen.rss_bytes // resource.getpagesize()
        return Vitals(seen.run_state, seen.cpu_s, seen.major_faults, pages)

    def rss_bytes(self) -> int:
        """Its last known resident memory; 0 if it is unknown."""
        return self._seen.rss_bytes if self._seen else 0

    def watch_end(self) -> None:
        """Its host does."""

    def anonymous_bytes(self) -> int | None:
        """Its last known memory that no file backs."""
        return self._seen.anonymous_bytes if self._seen else None

    def lend(self) -> Lent:
        """A process of another machine has no descriptors to lend."""
        raise RuntimeError("a process of another machine cannot be lent")

    def let_go(self) -> None:
        """Send nothing and report nothing any more: its host takes it to another front."""
        self._is_running = False
        self._forget_timer()

    # reports of the host

    def spawned(self, pid: int) -> None:
        self.pid = pid
        self._on_pid(pid)

    def seen(self, vitals: WorkerVitals) -> None:
        self._seen = vitals

    def not_spawned(self, failure: SpawnFailed) -> None:
        self._end(Reason.SPAWN_FAILED, failure.message)

    def ending(self, end: Ending) -> None:
        """It runs no more; its last frame has come."""
        if self._is_running:
            self._on_ending(classify(end.si_code, end.si_status, at=time.time(), oom=end.oom))

    def exited(self, end: Exited) -> None:
        """It has been reaped. Its last frame has come."""
        self.log = end.log
        reason = classify(end.si_code, end.si_status, at=time.time(), oom=end.oom)
        if end.si_status == Signals.SIGABRT:
            reason = structs.replace(reason, detail=device_memory(end.log))
        self.ended(reason)

    def lost(self, reason: Reason, detail: str) -> None:
        """Its machine or its host is gone. One that was not started yet has only been misplaced."""
        is_started = self.pid is not None
        self._end(reason if is_started else Reason.SPAWN_FAILED, detail)

    def _is_unended(self) -> None:
        """Go on elsewhere. Its room stays taken until its host reports the end, or is lost."""
        logger.error("worker_not_ended machine=%s pid=%s", self.machine, self.pid)
        self._end(Reason.NODE_LOST, f"{self.machine} does not end it")

    def _forget_timer(self) -> None:
        if self._unended is not None:
            self._unended.cancel()

    def _end(self, reason: Reason, detail: str) -> None:
        self.ended(ExitReason(reason=reason, at=time.time(), detail=detail))

    def ended(self, reason: ExitReason) -> None:
        """Report its end, once."""
        if self._is_running:
            self._is_running = False
            self._forget_timer()
            self._on_exit(reason)


def on_devices(boot: Boot, devices: str | None) -> Boot:
    """The boot message of a worker that gets only these GPUs, unless its model names its own."""
    if devices is None or boot.model.devices is not None:
        return boot
    return structs.replace(boot, model=structs.replace(boot.model, devices=devices))
