"""The ready workers of one model, and how many sequences each has."""

from gpufc.ids import Epoch
from supervisor.dispatch.router import Load, least_outstanding
from supervisor.fleet.port import WorkerHandle


class WorkerPool:
    """Invariant: the counts are those of the model's running and cancelling jobs."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._workers: dict[Epoch, WorkerHandle] = {}
        self._outstanding: dict[Epoch, int] = {}

    def __bool__(self) -> bool:
        return bool(self._workers)

    def add(self, worker: WorkerHandle) -> None:
        self._workers[worker.epoch] = worker
        self._outstanding[worker.epoch] = 0

    def remove(self, worker: WorkerHandle) -> None:
        del self._workers[worker.epoch], self._outstanding[worker.epoch]

    def took(self, worker: WorkerHandle) -> None:
        """It has one sequence more."""
        self._outstanding[worker.epoch] += 1

    def gave_back(self, worker: WorkerHandle) -> None:
        """It has one sequence less."""
        self._outstanding[worker.epoch] -= 1

    def with_room(self) -> WorkerHandle | None:
        """Who should get the next sequence; None if all are full."""
        loads = (Load(epoch, n, self._capacity) for epoch, n in self._outstanding.items())
        epoch = least_outstanding(loads)
        return None if epoch is None else self._workers[epoch]

    def idle(self) -> WorkerHandle | None:
        """One that has nothing to do."""
        free = (epoch for epoch, n in self._outstanding.items() if n == 0)
        epoch = next(free, None)
        return None if epoch is None else self._workers[epoch]

    def least_busy(self) -> WorkerHandle:
        """Whom to ask a question. There must be a worker."""
        return min(self._workers.values(), key=lambda worker: self._outstanding[worker.epoch])
