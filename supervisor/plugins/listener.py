"""The fleet's listener with plugins: dispatch first, then the hook for events."""

from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.fleet.exit_reason import ExitReason
from supervisor.fleet.port import WorkerHandle
from supervisor.plugins.plugins import Plugins


class PluggedListener:
    """Implements `FleetListener`."""

    def __init__(self, dispatcher: Dispatcher, plugins: Plugins) -> None:
        self._plugins = plugins
        # the hot path and what concerns no plugin go straight to dispatch
        self.worker_message = dispatcher.worker_message
        self.engine_proven = dispatcher.engine_proven
        self.engine_renewed = dispatcher.engine_renewed
        self.canary_began = dispatcher.canary_began
        self.condition_changed = dispatcher.condition_changed
        self._dispatcher = dispatcher

    def worker_ready(self, worker: WorkerHandle) -> None:
        self._dispatcher.worker_ready(worker)
        self._plugins.event("worker_ready", worker.name, worker.model)

    def worker_draining(self, worker: WorkerHandle) -> None:
        self._dispatcher.worker_draining(worker)
        self._plugins.event("worker_draining", worker.name, worker.model)

    def worker_lost(self, worker: WorkerHandle, reason: ExitReason) -> None:
        self._dispatcher.worker_lost(worker, reason)
        detail = str(reason.reason.value)
        self._plugins.event("worker_lost", worker.name, worker.model, detail)
