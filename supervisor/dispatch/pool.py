"""The ready workers of one model, and how many sequences each has.

A worker is *open* or *draining*. A draining worker only gets sequences that have begun on its
fingerprint. A sequence that has not begun may run on any open worker.
"""

from collections.abc import Iterator

from gpufc.ids import Epoch
from supervisor.dispatch.router import Load, least_outstanding
from supervisor.fleet.port import WorkerHandle


class WorkerPool:
    """Invariant: a worker's count is the number of jobs that have it as their `worker`.

    A method with a `fingerprint` considers all workers of that fingerprint, draining ones included;
    with None it considers the open ones.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        """Sequences that each worker may have."""
        self._workers: dict[Epoch, WorkerHandle] = {}
        self._outstanding: dict[Epoch, int] = {}
        self._draining: set[Epoch] = set()

    def __bool__(self) -> bool:
        return bool(self._workers)

    def add(self, worker: WorkerHandle) -> None:
        self._workers[worker.epoch] = worker
        self._outstanding[worker.epoch] = 0

    def drain(self, worker: WorkerHandle) -> None:
        """It gets no new sequences from now on."""
        self._draining.add(worker.epoch)

    def remove(self, worker: WorkerHandle) -> None:
        del self._workers[worker.epoch], self._outstanding[worker.epoch]
        self._draining.discard(worker.epoch)

    def took(self, worker: WorkerHandle) -> None:
        """It has one sequence more."""
        self._outstanding[worker.epoch] += 1

    def gave_back(self, worker: WorkerHandle) -> None:
        """It has one sequence less."""
        self._outstanding[worker.epoch] -= 1

    @property
    def n_beside(self) -> int:
        """Sequences on draining workers: they take no slot from others."""
        return sum(self._outstanding[epoch] for epoch in self._draining)

    @property
    def newest(self) -> WorkerHandle | None:
        """The open worker that became ready last."""
        return max(self._eligible(None), key=lambda worker: worker.epoch, default=None)

    def has(self, fingerprint: str | None) -> bool:
        """Whether a worker could take such a sequence, now or when it has room."""
        return any(True for _ in self._eligible(fingerprint))

    def fingerprint(self, epoch: Epoch) -> str | None:
        """The fingerprint of the worker of this epoch, if there is one."""
        worker = self._workers.get(epoch)
        return None if worker is None else worker.facts.fingerprint

    def has_open(self, fingerprint: str) -> bool:
        """Whether an open worker could take such a sequence."""
        return any(worker.facts.fingerprint == fingerprint for worker in self._eligible(None))

    def with_room(self, fingerprint: str | None) -> WorkerHandle | None:
        """The worker for the next such sequence; None if all are full."""
        loads = (
            Load(worker.epoch, self._outstanding[worker.epoch], self.capacity)
            for worker in self._eligible(fingerprint)
        )
        epoch = least_outstanding(loads)
        return None if epoch is None else self._workers[epoch]

    def idle(self, fingerprint: str | None) -> WorkerHandle | None:
        """A worker without sequences that could take such a sequence."""
        workers = self._eligible(fingerprint)
        return next((worker for worker in workers if not self._outstanding[worker.epoch]), None)

    def least_busy(self) -> WorkerHandle | None:
        """The open worker with the fewest sequences: the one to ask a question."""
        workers = self._eligible(None)
        return min(workers, key=lambda worker: self._outstanding[worker.epoch], default=None)

    def _eligible(self, fingerprint: str | None) -> Iterator[WorkerHandle]:
        for epoch, worker in self._workers.items():
            if fingerprint is None:
                if epoch not in self._draining:
                    yield worker
            elif worker.facts.fingerprint == fingerprint:
                yield worker
