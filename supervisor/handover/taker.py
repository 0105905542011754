"""The new front's side: reads what it is given, takes the workers over, then serves.

Up to `Go` nothing that the old front needs is touched, and whatever goes wrong ends this process
only. What it printed last is what the operator is told.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

from gpufc.config import Config
from gpufc.errors import ConfigError, LinkError, StartError
from gpufc.ids import WorkerName
from gpufc.protocol import PROTOCOL_VERSION
from gpufc.settings import Settings
from supervisor.dispatch.ledger import Ledger
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.inheritance import FleetInheritance
from supervisor.fleet.process import ExitListener
from supervisor.fleet.states import WorkerState
from supervisor.handover import messages
from supervisor.handover.adopted import AdoptedProcess, Inherited
from supervisor.handover.messages import (
    VERSION,
    Attached,
    Attachment,
    Estate,
    FromNew,
    Go,
    Serving,
    Unwilling,
    Willing,
)
from supervisor.handover.packets import PacketSocket
from supervisor.handover.relay import Relay, RelayedDispatch
from supervisor.runtime_dir import RuntimeDir

logger = logging.getLogger(__name__)

ESTATE_S = 10.0
ATTACH_S = 20.0
"""After that the new front serves even if a worker has yet to come over: requests wait for it, and
the watchdog looks after the rest."""


class Inheritance(Struct, frozen=True):
    """All that was received, as it is used here."""

    estate: Estate
    relay: socket.socket
    lock_fd: int
    output: tuple[int, int]
    listeners: tuple[socket.socket, ...]
    workers: dict[WorkerName, Inherited]


def receive(packets: PacketSocket) -> Inheritance:
    """The estate with its descriptors. Raises `LinkError`, `OSError`."""
    data, descriptors = packets.receive_now(ESTATE_S)
    estate = messages.decode_from_old(data)
    if not isinstance(estate, Estate):
        raise LinkError("the old front did not begin with its estate")
    workers = estate.fleet.workers
    if len(descriptors) != 4 + estate.n_listeners + 2 * len(workers):
        raise LinkError("the estate is incomplete")
    relay, lock, out, err, *others = descriptors
    listeners, processes = others[: estate.n_listeners], others[estate.n_listeners :]
    pairs = zip(processes[::2], processes[1::2], strict=True)
    return Inheritance(
        estate,
        relay=socket.socket(fileno=relay),
        lock_fd=lock,
        output=(out, err),
        listeners=tuple(socket.socket(fileno=fd) for fd in listeners),
        workers={
            worker.spec.name: Inherited(worker.pid, pidfd, boot_write)
            for worker, (pidfd, boot_write) in zip(workers, pairs, strict=True)
        },
    )


def configure(
    estate: Estate, resolve: Callable[[dict[str, object], str | None], Settings]
) -> Settings:
    """The configuration, read anew from where the old front had it.

    What belongs to the workers must be as it was: they are not started again. Raises `ConfigError`
    or `StartError`.
    """
    if estate.version != VERSION or estate.protocol != PROTOCOL_VERSION:
        raise StartError(
            "the old front is of a version of gpufc that cannot hand over to this one; "
            "stop it and start this one"
        )
    origins = estate.origins
    return resolve(dict(origins.flags), origins.file)


def require_same_model(config: Config, estate: Estate) -> None:
    """Raises `ConfigError` if the workers would have to be replaced."""
    wanted, given = (
        msgspec.structs.asdict(config.model),
        msgspec.structs.asdict(estate.origins.model),
    )
    changed = sorted(key for key in wanted if wanted[key] != given[key])
    if changed:
        raise ConfigError(
            f"the configuration has another {', '.join(changed)} now: `swap` changes the model, "
            "an upgrade does not"
        )


def refuse(packets: PacketSocket, reason: str) -> None:
    """Tell the old front why it has to go on."""
    with contextlib.suppress(OSError, LinkError):
        packets.send(messages.encode(Unwilling(reason)))


class TakingDispatch(RelayedDispatch, Protocol):
    """Dispatch, as far as a takeover needs it."""

    ledger: Ledger

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that depends on the fleet."""
        ...


class TakingFront(Protocol):
    """What takes over (`supervisor.app.Front`), before it has been entered."""

    fleet: Fleet
    runtime: RuntimeDir

    @property
    def dispatcher(self) -> TakingDispatch: ...


class Taker:
    """One takeover. Made in the event loop; then `prepare`, `take_over` and `serving`."""

    def __init__(self, packets: PacketSocket, inheritance: Inheritance) -> None:
        estate = inheritance.estate
        self.runtime = RuntimeDir.take_over(estate.runtime_dir, inheritance.lock_fd)
        self.listeners = list(inheritance.listeners)
        self.started_at = estate.started_at
        self._packets = packets
        self._inheritance = inheritance
        self._adopted: dict[WorkerName, AdoptedProcess] = {}
        self._booted = asyncio.Event()
        self.relay: Relay | None = None

    @property
    def fleet_inheritance(self) -> FleetInheritance:
        """What the fleet begins with."""
        return FleetInheritance(
            holdings=self._inheritance.estate.fleet,
            processes={name: partial(self._adopt, name) for name in self._inheritance.workers},
        )

    def _adopt(self, name: WorkerName, log: Path, on_exit: ExitListener) -> AdoptedProcess:
        inherited = self._inheritance.workers[name]
        adopted = AdoptedProcess(inherited, log, on_exit, self._booted.set)
        self._adopted[name] = adopted
        return adopted

    async def prepare(self, front: TakingFront) -> None:
        """Open links for the workers, say so, and wait for the word to go. Raises `LinkError`."""
        await front.fleet.start()
        names = self._inheritance.workers.keys()
        while any(name not in self._adopted or not self._adopted[name].successor for name in names):
            self._booted.clear()
            await self._booted.wait()
        self._say(Willing(tuple(self._attachment(name) for name in names)))
        data = await self._packets.receive()
        go = messages.decode_from_old(data) if data else None
        if not isinstance(go, Go):
            raise LinkError("the old front has changed its mind")
        ledger = front.dispatcher.ledger
        ledger.requests, ledger.tokens = go.totals.requests, go.totals.tokens

    def _attachment(self, name: WorkerName) -> Attachment:
        boot = self._adopted[name].successor
        if boot is None:
            raise AssertionError("prepared without a boot message")
        return Attachment(
            worker=name, successor=boot.epoch, endpoint=boot.endpoint, token=boot.token
        )

    async def take_over(self, front: TakingFront) -> None:
        """From now on the workers are ours, and the old front's sequences too."""
        front.runtime.own()
        for adopted in self._adopted.values():
            adopted.attach()
        waiting = set(self._adopted)

        def all_attached() -> bool:
            for row in front.fleet.workers():
                if row.name in waiting and row.state is WorkerState.READY and row.pid:
                    waiting.discard(row.name)
                    self._say(Attached(row.name, row.pid))
            return not waiting

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ATTACH_S):
                await front.dispatcher.wait_until(all_attached)
        models = {epoch: model for model, epoch in self._inheritance.estate.relayed.items()}
        self.relay = Relay(front.dispatcher, models)
        await self.relay.open(self._inheritance.relay)

    def serving(self, addresses: list[str]) -> None:
        """Connections are accepted here. From now on what is printed goes where the old front's
        output went."""
        for fd, theirs in enumerate(self._inheritance.output, start=1):
            os.dup2(theirs, fd)
            os.close(theirs)
        self._say(Serving(tuple(addresses)))

    def _say(self, message: FromNew) -> None:
        try:
            self._packets.send(messages.encode(message))
        except OSError as err:
            logger.warning("old_front_gone: %s", err)
