"""The old front's side of the relay: presents the new front as workers.

To the old front's dispatch, its workers are lost and these are ready instead. Replay therefore
moves its running sequences to the new front, and later requests on its connections follow the same
way.
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
    Embedded,
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

RELAYED = (Prepared, Refused, Detokenized, Embedded, Step, Finished)
"""`fleet.port.WorkerMessage`, for `isinstance`."""


class RemoteWorker:
    """The new front's workers of one model. Implements `fleet.port.WorkerHandle`."""

    def __init__(self, before: WorkerHandle, epoch: Epoch) -> None:
        """Replaces `before` and continues its line. No worker had this epoch."""
        self.name = before.name
        self.epoch = epoch
        self.model = before.model
        self.line = before.line
        self.facts = before.facts
        self.machine = before.machine
        self.write: Callable[[bytes], None] = lambda data: None

    def send(self, message: ToWorker) -> None:
        """See the port."""
        self.write(wire.encode(message))

    def drained(self) -> None:
        """See the port. The new front drains its workers itself."""

    def explain_deaths(self, count: int) -> None:
        """See the port. The new front convicts suspects itself."""


class RemoteFleet:
    """The old front's connection to the new front. `on_lost` is called when it has ended."""

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
        """Take over the connected socket. Messages to the workers are sent from now on."""
        self._frames = await Frames.over(sock, self._heard, self._gone)
        for worker in self._workers.values():
            worker.write = self._frames.write

    def begin(self) -> None:
        """Report the workers as ready. From now on, the new front's end is the workers' loss."""
        self._has_begun = True
        for worker in self._workers.values():
            self._listener.worker_ready(worker)

    def close(self) -> None:
        """Close the connection."""
        if self._frames is not None:
            self._frames.close()

    def _heard(self, data: bytes) -> None:
        message = wire.decode_from_worker(data)
        worker = self._workers.get(message.epoch)
        if worker is None or not isinstance(message, RELAYED):
            raise LinkError(f"the new front sent an unexpected {type(message).__name__}")
        self._listener.worker_message(worker, message)

    def _gone(self) -> None:
        if self.lost or not self._has_begun:
            return
        self.lost = True
        self._on_lost()
        reason = ExitReason(reason=Reason.KILLED, at=time.time(), detail="the new front is gone")
        for worker in self._workers.values():
            self._listener.worker_lost(worker, reason)
