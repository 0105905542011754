"""Between one runner and the listener: who is on stage is heard, who is not is only tried.

A place has several processes while one is replaced, and the listener must see each worker at the
right moment and in the right order: ready, messages, at most one draining, lost.
"""

import logging
from collections.abc import Callable

from supervisor.fleet.exit_reason import ExitReason
from supervisor.fleet.port import FleetListener, WorkerHandle, WorkerMessage
from supervisor.fleet.trial import Trial

logger = logging.getLogger(__name__)


class Stage:
    """A runner's listener. All methods are called in the event loop; none raises."""

    def __init__(
        self,
        listener: Callable[[], FleetListener | None],
        *,
        on_stage: bool,
        changed: Callable[[], None],
        lost: Callable[[ExitReason], None],
    ) -> None:
        """`changed` is told when a worker came or went; `lost`, after the listener, that the
        worker on stage is gone."""
        self.worker: WorkerHandle | None = None
        """The runner's ready process, announced or not."""
        self.on_stage = on_stage
        self.draining = False
        self.trial: Trial | None = None
        self.on_drain: Callable[[], None] = lambda: None
        """Tells the runner that the worker which it has now is being drained."""
        self._listener = listener
        self._changed = changed
        self._lost = lost

    # what the place decides

    def enter(self) -> None:
        """From now on the listener hears of this runner, first of its ready worker."""
        self.on_stage = True
        self.trial = None
        if self.worker is not None:
            worker = self.worker
            self._tell(lambda listener: listener.worker_ready(worker))

    def leave(self) -> None:
        """From now on it does not. The worker on stage must have been lost."""
        self.on_stage = False

    def drain(self) -> None:
        """Every worker of this runner, now and later, ends what has begun and gets nothing new."""
        self.draining = True
        if self.worker is not None and self.on_stage:
            self._tell_draining(self.worker)

    def undrain(self) -> None:
        """The next worker of this runner is an ordinary one again."""
        self.draining = False

    # what the runner reports (`port.FleetListener`)

    def worker_ready(self, worker: WorkerHandle) -> None:
        self.worker = worker
        if self.on_stage:
            self._tell(lambda listener: listener.worker_ready(worker))
            if self.draining:
                self._tell_draining(worker)
        self._changed()

    def worker_message(self, worker: WorkerHandle, message: WorkerMessage) -> None:
        if self.on_stage:
            listener = self._listener()
            if listener is not None:
                listener.worker_message(worker, message)
        elif self.trial is not None:
            self.trial.feed(worker, message)

    def worker_draining(self, worker: WorkerHandle) -> None:
        """A runner never says so: the place does, by `drain`."""

    def worker_lost(self, worker: WorkerHandle, reason: ExitReason) -> None:
        self.worker = None
        if self.on_stage:
            self._tell(lambda listener: listener.worker_lost(worker, reason))
            self._lost(reason)
        elif self.trial is not None:
            self.trial.lost(str(reason))
        self._changed()

    def condition_changed(self) -> None:
        self._tell(lambda listener: listener.condition_changed())
        self._changed()

    def _tell_draining(self, worker: WorkerHandle) -> None:
        self.on_drain()
        self._tell(lambda listener: listener.worker_draining(worker))

    def _tell(self, call: Callable[[FleetListener], None]) -> None:
        listener = self._listener()
        if listener is None:
            return
        try:
            call(listener)
        except Exception:  # the boundary: a listener's trouble must not stop a replacement
            logger.exception("listener failed")
