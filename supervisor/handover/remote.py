"""The old front's side of the relay: the new front, looking like a worker.

The old front's dispatch was told that its workers are gone, asked for, and that others are ready:
these. So everything that it runs is replayed on the new front by the one mechanism that there is,
and so is what still comes in on connections that it keeps.
"""

import logging
import socket
import time
from collections.abc import Callable

from gpufc import wire
from gpufc.errors import LinkError
from gpufc.ids import Epoch
from gpufc.protocol import (
    Detokenized,
    Finished,
    Prepared,
    Refused,
    Step,
    ToWorker,
)
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.port import FleetListener, WorkerHandle
from supervisor.handover.frames import Frames

logger = logging.getLogger(__name__)

RELAYED = (Prepared, Refused, Detokenized, Step, Finished)
"""`fleet.port.WorkerMessage`, for `isinstance`."""


class RemoteWorker:
    """One model's workers at the new front. Implements `fleet.port.WorkerHandle`."""

    def __init__(self, before: WorkerHandle, epoch: Epoch) -> None:
        """In the place of `before`, whose line it continues. No worker had this epoch."""
        self.name = before.name
        self.epoch = epoch
        self.model = before.model
        self.line = before.line
        self.facts = before.facts
        self.write: Callable[[bytes], None] = lambda data: None

    def send(self, message: ToWorker) -> None:
        """See the port."""
        self.write(wire.encode(message))

    def drained(self) -> None:
        """See the port. Whether the new front drains a worker is its own affair."""

    def explain_deaths(self, count: int) -> None:
        """See the port. The new front convicts by itself."""


class RemoteFleet:
    """The old front's connection to the new one. `on_lost` is told when that has ended."""

    def __init__(
        self,
        listener: FleetListener,
        workers: list[RemoteWorker],
        on_lost: Callable[[], None],
    ) -> None:
        self.lost = False
        self._listener = listener
        self._workers = {worker.epoch: worker for worker in workers}
        self._on_lost = on_lost
        self._frames: Frames | None = None
        self._has_begun = False

    async def open(self, sock: socket.socket) -> None:
        """Take the connected socket over. What is sent to the workers from now on is sent."""
        self._frames = await Frames.over(sock, self._heard, self._gone)
        for worker in self._workers.values():
            worker.write = self._frames.write

    def begin(self) -> None:
        """Report the workers as ready. From now on the new front's end is their loss."""
        self._has_begun = True
        for worker in self._workers.values():
            self._listener.worker_ready(worker)

    def close(self) -> None:
        """The old front needs nothing any more."""
        if self._frames is not None:
            self._frames.close()

    def _heard(self, data: bytes) -> None:
        message = wire.decode_from_worker(data)
        worker = self._workers.get(message.epoch)
        if worker is None or not isinstance(message, RELAYED):
            raise LinkError(f"the new front said {type(message).__name__} out of turn")
        self._listener.worker_message(worker, message)

    def _gone(self) -> None:
        if self.lost or not self._has_begun:
            return
        self.lost = True
        self._on_lost()
        reason = ExitReason(reason=Reason.KILLED, at=time.time(), detail="the new front is gone")
        for worker in self._workers.values():
            self._listener.worker_lost(worker, reason)
