"""The ready workers of one model, and how many sequences each has.

A worker is *open*, *closed* or *draining*. A closed or draining worker only gets sequences that
have begun on its fingerprint. A sequence that has not begun may run on any open worker.
"""

from collections.abc import Iterator, Sequence

from gpufc.config import Routing
from gpufc.ids import Epoch
from supervisor.fleet.port import WorkerHandle
from supervisor.routing.port import Arrival
from supervisor.routing.router import Router
from supervisor.routing.strategies import strategy


class WorkerPool:
    """Invariant: a worker's count is the number of jobs that have it as their `worker`. The open
    workers of one fingerprint are in one router, which has the same counts.

    A method with a `fingerprint` considers all workers of that fingerprint, draining ones included;
    with None it considers the open ones.
    """

    def __init__(self, capacity: int, routing: Routing = Routing.LEAST_OUTSTANDING) -> None:
        self._capacity = capacity
        self._routing = routing
        self._routers: dict[str, Router] = {}
        self._workers: dict[Epoch, WorkerHandle] = {}
        self._outstanding: dict[Epoch, int] = {}
        self._draining: set[Epoch] = set()
        self._closed: set[Epoch] = set()
        self.aside: str | None = None
        """The fingerprint of a canary: others are asked questions first."""

    def resize(self, capacity: int) -> None:
        """Each worker may have so many sequences from now on."""
        self._capacity = capacity
        for router in self._routers.values():
            router.resize(capacity)

    def __bool__(self) -> bool:
        return bool(self._workers)

    def add(self, worker: WorkerHandle) -> None:
        self._workers[worker.epoch] = worker
        self._outstanding[worker.epoch] = 0
        fingerprint = worker.facts.fingerprint
        router = self._routers.get(fingerprint)
        if router is None:
            router = self._routers[fingerprint] = Router(strategy(self._routing))
        router.add(worker.epoch, self._capacity)

    def drain(self, worker: WorkerHandle) -> None:
        """It gets no new sequences from now on."""
        self._draining.add(worker.epoch)
        self._routers[worker.facts.fingerprint].remove(worker.epoch)

    def open(self, epoch: Epoch, *, is_open: bool) -> None:
        """It gets new sequences, or none."""
        worker = self._workers.get(epoch)
        if worker is None or epoch in self._draining or is_open is (epoch not in self._closed):
            return
        router = self._routers[worker.facts.fingerprint]
        if is_open:
            self._closed.discard(epoch)
            router.add(epoch, self._capacity)
            for _ in range(self._outstanding[epoch]):
                router.took(epoch, Arrival())
        else:
            self._closed.add(epoch)
            router.remove(epoch)

    def remove(self, worker: WorkerHandle) -> None:
        del self._workers[worker.epoch], self._outstanding[worker.epoch]
        self._draining.discard(worker.epoch)
        self._closed.discard(worker.epoch)
        fingerprint = worker.facts.fingerprint
        self._routers[fingerprint].remove(worker.epoch)
        if not self.has(fingerprint):
            del self._routers[fingerprint]

    def took(self, worker: WorkerHandle, arrival: Arrival) -> None:
        """It has one sequence more."""
        self._outstanding[worker.epoch] += 1
        self._routers[worker.facts.fingerprint].took(worker.epoch, arrival)

    def prefilled(self, worker: WorkerHandle, n_tokens: int) -> None:
        """It has computed so many tokens of what it took, or found them in its cache."""
        self._routers[worker.facts.fingerprint].prefilled(worker.epoch, n_tokens)

    def gave_back(self, worker: WorkerHandle, n_unfilled: int) -> None:
        """It has one sequence less. `n_unfilled` of its tokens had not been computed."""
        self._outstanding[worker.epoch] -= 1
        self._routers[worker.facts.fingerprint].gave_back(worker.epoch, n_unfilled)

    @property
    def outstanding(self) -> dict[Epoch, int]:
        """The sequences of each worker."""
        return dict(self._outstanding)

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

    def has_open_room(self, fingerprint: str) -> bool:
        """Whether an open worker has room for such a sequence now."""
        return any(router.loads.least() is not None for router in self._of(fingerprint))

    def with_room(
        self, fingerprint: str | None, arrival: Arrival, preferred: str | None = None
    ) -> WorkerHandle | None:
        """The worker for such a sequence: the one of the preferred name, if it has room, else the
        router's choice. None if all are full. Draining ones come last."""
        if preferred is not None:
            for worker in self._eligible(fingerprint):
                if worker.name == preferred and self._has_room(worker):
                    return worker
        routers = self._routers.values() if fingerprint is None else self._of(fingerprint)
        found = [epoch for router in routers if (epoch := router.choose(arrival)) is not None]
        if found:
            return self._workers[min(found, key=self._outstanding.__getitem__)]
        if fingerprint is None:
            return None
        draining = [worker for worker in self._eligible(fingerprint) if self._has_room(worker)]
        return min(draining, key=self._count, default=None)

    def _of(self, fingerprint: str) -> Sequence[Router]:
        router = self._routers.get(fingerprint)
        return () if router is None else (router,)

    def _count(self, worker: WorkerHandle) -> int:
        return self._outstanding[worker.epoch]

    def _has_room(self, worker: WorkerHandle) -> bool:
        return self._count(worker) < self._capacity

    def loads(self) -> dict[str, tuple[int, int]]:
        """The sequences that each open worker has and may have, by its name."""
        open_ones = self._eligible(None)
        return {worker.name: (self._count(worker), self._capacity) for worker in open_ones}

    def idle(self, fingerprint: str | None) -> WorkerHandle | None:
        """A worker without sequences that could take such a sequence."""
        workers = self._eligible(fingerprint)
        return next((worker for worker in workers if not self._count(worker)), None)

    def least_busy(self) -> WorkerHandle | None:
        """The open worker with the fewest sequences: the one to ask a question."""

        def rank(worker: WorkerHandle) -> tuple[bool, int]:
            return worker.facts.fingerprint == self.aside, self._count(worker)

        return min(self._eligible(None), key=rank, default=None)

    def _eligible(self, fingerprint: str | None) -> Iterator[WorkerHandle]:
        for epoch, worker in self._workers.items():
            if fingerprint is None:
                if epoch not in self._draining and epoch not in self._closed:
                    yield worker
            elif worker.facts.fingerprint == fingerprint:
                yield worker
