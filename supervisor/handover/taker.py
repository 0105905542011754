"""The new front's side: reads the estate, takes the workers over, then serves.

Before `Go` it changes nothing that the old front needs, and any failure ends this process only. The
operator reads the last line that this process printed.
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

from msgspec import Struct

from gpufc.config import Config
from gpufc.errors import ConfigError, LinkError, StartError
from gpufc.ids import WorkerName
from gpufc.protocol import PROTOCOL_VERSION
from gpufc.settings import Settings
from supervisor.dispatch.ledger import Ledger
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.followed import ExitListener, Lent
from supervisor.fleet.inheritance import FleetInheritance
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
"""After this time the new front serves even without some workers: requests wait for them, and the
watchdog handles the rest."""


class Inheritance(Struct, frozen=True):
    """The received estate with its descriptors as objects."""

    estate: Estate
    relay: socket.socket
    lock_fd: int
    output: tuple[int, int]
    listeners: tuple[socket.socket, ...]
    workers: dict[WorkerName, Inherited]


def receive(packets: PacketSocket) -> Inheritance:
    """Receive the estate with its descriptors.

    Raises `LinkError`, `OSError`, or `StartError` for an estate of another version.
    """
    data, descriptors = packets.receive_now(ESTATE_S)
    _require_version(messages.decode_head(data))
    estate = messages.decode_from_old(data)
    if not isinstance(estate, Estate):
        raise LinkError("the old front did not begin with its estate")
    workers = estate.fleet.lent
    n_words = sum(worker.spec.name in estate.watched for worker in workers)
    if len(descriptors) != 4 + estate.n_listeners + 2 * len(workers) + n_words:
        raise LinkError("the estate is incomplete")
    relay, lock, out, err, *others = descriptors
    listeners, of_workers = others[: estate.n_listeners], iter(others[estate.n_listeners :])
    return Inheritance(
        estate,
        relay=socket.socket(fileno=relay),
        lock_fd=lock,
        output=(out, err),
        listeners=tuple(socket.socket(fileno=fd) for fd in listeners),
        workers={
            worker.spec.name: Inherited(
                worker.pid,
                Lent(
                    next(of_workers),
                    next(of_workers),
                    next(of_workers) if worker.spec.name in estate.watched else None,
                ),
            )
            for worker in workers
        },
    )


def _require_version(head: messages.EstateHead) -> None:
    if (head.version, head.protocol) != (VERSION, PROTOCOL_VERSION):
        raise StartError(
            f"the running front is of another release of gpufc (handover version {head.version} and"
            f" worker protocol {head.protocol}; the installed one has {VERSION} and"
            f" {PROTOCOL_VERSION}), which cannot hand over to this one: `stop` it and `start` this"
            " one"
        )


def configure(
    estate: Estate, resolve: Callable[[dict[str, object], str | None], Settings]
) -> Settings:
    """The configuration, read again from the old front's sources.

    The workers' part must be unchanged: the workers are not started again. Raises `ConfigError`.
    """
    origins = estate.origins
    return resolve(dict(origins.flags), origins.file)


def require_same_model(config: Config, estate: Estate) -> None:
    """Raises `ConfigError` if the configuration would need other workers."""
    wanted, given = config.models, estate.origins.models
    if list(wanted) != list(given):
        raise ConfigError(
            f"the configuration has the models {', '.join(wanted)} now, and the front runs"
            f" {', '.join(given)}: an upgrade changes no models; `stop` and `start` the service"
        )
    changed = sorted(
        {
            key
            for name, model in wanted.items()
            for key in model.__struct_fields__
            if getattr(model, key) != getattr(given[name], key)
        }
    )
    if changed:
        raise ConfigError(
            f"the configuration has changed {', '.join(changed)}, which an upgrade does not apply:"
            " change it back, or `stop` and `start` the service; `swap` changes the model"
        )


def refuse(packets: PacketSocket, reason: str) -> None:
    """Tell the old front that it has to go on, and why."""
    with contextlib.suppress(OSError, LinkError):
        packets.send(messages.encode(Unwilling(reason)))


class TakingDispatch(RelayedDispatch, Protocol):
    """The port of a takeover to dispatch."""

    ledger: Ledger

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition of the fleet."""
        ...


class TakingFront(Protocol):
    """The front that takes over (`supervisor.app.Front`), before it is entered."""

    fleet: Fleet
    runtime: RuntimeDir

    @property
    def dispatcher(self) -> TakingDispatch: ...
    @property
    def operations(self) -> "Draining": ...


class Draining(Protocol):
    """The operations that an operator's drain goes on by (`supervisor.operations.Operations`)."""

    def drain(self, lead_s: float = 0.0) -> None:
        """Refuse new requests after `lead_s`."""
        ...


class Taker:
    """One takeover. Made in the event loop. Call `prepare`, `take_over` and `serving` in this
    order."""

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
        """The state that the fleet begins with."""
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
        """Open links for the workers, report that, and wait for `Go`. Raises `LinkError`."""
        await front.fleet.start()
        names = self._inheritance.workers.keys()
        while any(name not in self._adopted or not self._adopted[name].successor for name in names):
            self._booted.clear()
            await self._booted.wait()
        self._say(Willing(tuple(self._attachment(name) for name in names)))
        data = await self._packets.receive()
        go = messages.decode_from_old(data) if data else None
        if not isinstance(go, Go):
            raise LinkError("the old front did not say `Go`")
        front.dispatcher.ledger.restore(go.totals)
        if go.drains_in_s is not None:
            front.operations.drain(go.drains_in_s)

    def _attachment(self, name: WorkerName) -> Attachment:
        boot = self._adopted[name].successor
        if boot is None:
            raise AssertionError("prepared without a boot message")
        return Attachment(
            worker=name, successor=boot.epoch, endpoint=boot.endpoint, token=boot.token
        )

    async def take_over(self, front: TakingFront) -> None:
        """Own the workers and the old front's sequences from now on."""
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
        """Report that connections are accepted. Output goes to the old front's output from now
        on."""
        for fd, theirs in enumerate(self._inheritance.output, start=1):
            os.dup2(theirs, fd)
            os.close(theirs)
        self._say(Serving(tuple(addresses)))

    def _say(self, message: FromNew) -> None:
        try:
            self._packets.send(messages.encode(message))
        except OSError as err:
            logger.warning("old_front_gone: %s", err)
