"""The ready workers of one model, and how many sequences each has.

A worker is *open*, *closed* or *draining*. A closed or draining worker only gets sequences that
have begun on its fingerprint. A sequence that has not begun may run on any open worker.
"""

from collections.abc import Iterable

from gpufc.config import Routing
from gpufc.ids import Epoch, WorkerName
from supervisor.fleet.port import WorkerHandle
from supervisor.routing.loads import Load, Loads
from supervisor.routing.port import Arrival
from supervisor.routing.router import Router
from supervisor.routing.strategies import strategy


class WorkerPool:
    """Invariant: a worker's count is the number of jobs that have a place on it. A worker is
    in exactly one of its fingerprint's accounts, with the same count: open ones in the router, the
    others in `_beside`.

    A method with a `fingerprint` considers all workers of that fingerprint, draining ones included;
    with None it considers the open ones. No choice and no account looks at all workers.
    """

    def __init__(self, capacity: int, routing: Routing = Routing.LEAST_OUTSTANDING) -> None:
        self._capacity = capacity
        self._routing = routing
        self._routers: dict[str, Router] = {}
        self._beside: dict[str, Loads] = {}
        self._workers: dict[Epoch, WorkerHandle] = {}
        self._named: dict[WorkerName, dict[Epoch, WorkerHandle]] = {}
        self._open: dict[Epoch, WorkerHandle] = {}
        self._outstanding: dict[Epoch, int] = {}
        self._draining: set[Epoch] = set()
        self._on_line: dict[int, int] = {}
        self.n_beside = 0
        """Sequences on draining workers: they take no slot from others."""
        self.aside: str | None = None
        """The fingerprint of a canary: others are asked questions first."""

    def resize(self, capacity: int) -> None:
        """Each worker may have so many sequences from now on."""
        self._capacity = capacity
        for router in self._routers.values():
            router.resize(capacity)
        for beside in self._beside.values():
            beside.resize(capacity)

    def __bool__(self) -> bool:
        return bool(self._workers)

    def add(self, worker: WorkerHandle) -> None:
        epoch, fingerprint = worker.epoch, worker.facts.fingerprint
        self._workers[epoch] = self._open[epoch] = worker
        self._named.setdefault(worker.name, {})[epoch] = worker
        self._outstanding[epoch] = 0
        if fingerprint not in self._routers:
            self._routers[fingerprint] = Router(strategy(self._routing))
            self._beside[fingerprint] = Loads()
        is_far = worker.machine is not None
        self._routers[fingerprint].add(epoch, self._capacity, is_far=is_far)

    def drain(self, worker: WorkerHandle) -> None:
        """It gets no new sequences from now on."""
        if worker.epoch not in self._draining:
            self._draining.add(worker.epoch)
            self.n_beside += self._outstanding[worker.epoch]
            self._put_beside(worker)

    def open(self, epoch: Epoch, *, is_open: bool) -> None:
        """It gets new sequences, or none."""
        worker = self._workers.get(epoch)
        if worker is None or epoch in self._draining or is_open is (epoch in self._open):
            return
        if not is_open:
            self._put_beside(worker)
            return
        fingerprint = worker.facts.fingerprint
        self._beside[fingerprint].remove(epoch)
        n_sequences, is_far = self._outstanding[epoch], worker.machine is not None
        self._routers[fingerprint].add(epoch, self._capacity, n_sequences, is_far=is_far)
        self._open[epoch] = worker

    def _put_beside(self, worker: WorkerHandle) -> None:
        epoch, fingerprint = worker.epoch, worker.facts.fingerprint
        if self._open.pop(epoch, None) is not None:
            self._routers[fingerprint].remove(epoch)
            self._beside[fingerprint].add(epoch, self._capacity, self._outstanding[epoch])

    def remove(self, worker: WorkerHandle) -> None:
        epoch, fingerprint = worker.epoch, worker.facts.fingerprint
        self._count(worker, -self._outstanding[epoch])
        del self._workers[epoch], self._outstanding[epoch]
        self._open.pop(epoch, None)
        self._draining.discard(epoch)
        self._routers[fingerprint].remove(epoch)
        self._beside[fingerprint].remove(epoch)
        if not self.has(fingerprint):
            del self._routers[fingerprint], self._beside[fingerprint]
        named = self._named[worker.name]
        del named[epoch]
        if not named:
            del self._named[worker.name]

    def took(self, worker: WorkerHandle, arrival: Arrival) -> None:
        """It has one sequence more."""
        self._count(worker, 1)
        self._routers[worker.facts.fingerprint].took(worker.epoch, arrival)
        self._beside[worker.facts.fingerprint].took(worker.epoch, arrival.n_tokens)

    def prefilled(self, worker: WorkerHandle, n_tokens: int) -> None:
        """It has computed so many tokens of what it took, or found them in its cache."""
        self._routers[worker.facts.fingerprint].prefilled(worker.epoch, n_tokens)

    def gave_back(self, worker: WorkerHandle, n_unfilled: int) -> None:
        """It has one sequence less. `n_unfilled` of its tokens had not been computed."""
        self._count(worker, -1)
        self._routers[worker.facts.fingerprint].gave_back(worker.epoch, n_unfilled)
        self._beside[worker.facts.fingerprint].gave_back(worker.epoch, n_unfilled)

    def _count(self, worker: WorkerHandle, change: int) -> None:
        self._outstanding[worker.epoch] += change
        if worker.epoch in self._draining:
            self.n_beside += change
        n = self._on_line.pop(worker.line, 0) + change
        if n:
            self._on_line[worker.line] = n

    def asked(self, worker: WorkerHandle) -> None:
        """It was asked questions: others are asked the next ones."""
        self._routers[worker.facts.fingerprint].loads.was_asked(worker.epoch)

    @property
    def outstanding(self) -> dict[Epoch, int]:
        """The sequences of each worker."""
        return dict(self._outstanding)

    def n_on(self, worker: WorkerHandle) -> int:
        """The sequences of a worker that is here."""
        return self._outstanding[worker.epoch]

    def n_on_line(self, line: int) -> int:
        """The sequences of a line of workers."""
        return self._on_line.get(line, 0)

    @property
    def newest(self) -> WorkerHandle | None:
        """The open worker that became ready last."""
        return self._open[max(self._open)] if self._open else None

    def has(self, fingerprint: str | None) -> bool:
        """Whether a worker could take such a sequence, now or when it has room."""
        if fingerprint is None:
            return bool(self._open)
        return self.has_open(fingerprint) or bool(self._beside.get(fingerprint))

    def fingerprint(self, epoch: Epoch) -> str | None:
        """The fingerprint of the worker of this epoch, if there is one."""
        worker = self._workers.get(epoch)
        return None if worker is None else worker.facts.fingerprint

    def has_open(self, fingerprint: str) -> bool:
        """Whether an open worker could take such a sequence."""
        return bool(self._routers.get(fingerprint))

    def has_open_room(self, fingerprint: str) -> bool:
        """Whether an open worker has room for such a sequence now."""
        router = self._routers.get(fingerprint)
        return router is not None and router.loads.least() is not None

    def has_room(self, fingerprint: str) -> bool:
        """Whether any worker has room for a sequence that has begun on this fingerprint."""
        beside = self._beside.get(fingerprint)
        is_beside = beside is not None and beside.least() is not None
        return is_beside or self.has_open_room(fingerprint)

    @property
    def has_any_room(self) -> bool:
        """Whether any worker has room, be it for sequences that have begun."""
        return any(map(self.has_room, self._routers))

    @property
    def is_full(self) -> bool:
        """Whether there are open workers, and none of them has room."""
        return bool(self._open) and not any(map(self.has_open_room, self._routers))

    def with_room(
        self, fingerprint: str | None, arrival: Arrival, preferred: Iterable[WorkerName] = ()
    ) -> WorkerHandle | None:
        """The worker for such a sequence: the first one of the preferred names with room, else the
        router's choice. None if all are full. Draining ones come last."""
        for name in preferred:
            for worker in self._named.get(name, {}).values():
                if self._may_take(worker, fingerprint):
                    return worker
        if fingerprint is None:
            chosen = [router.choose(arrival) for router in self._routers.values()]
            return self._least(chosen)
        router = self._routers.get(fingerprint)
        epoch = None if router is None else router.choose(arrival)
        if epoch is None and fingerprint in self._beside:
            epoch = self._beside[fingerprint].least()
        return None if epoch is None else self._workers[epoch]

    def _may_take(self, worker: WorkerHandle, fingerprint: str | None) -> bool:
        fits = worker.epoch in self._open
        if fingerprint is not None:
            fits = worker.facts.fingerprint == fingerprint
        return fits and self.n_on(worker) < self._capacity

    def _least(self, epochs: list[Epoch | None]) -> WorkerHandle | None:
        found = [epoch for epoch in epochs if epoch is not None]
        least = min(found, key=self._outstanding.__getitem__, default=None)
        return None if least is None else self._workers[least]

    def loads(self) -> dict[WorkerName, Load]:
        """The open work of each open worker, by its name."""
        open_ones = self._open.values()
        return {
            one.name: self._routers[one.facts.fingerprint].loads[one.epoch] for one in open_ones
        }

    def idle(self, fingerprint: str | None) -> WorkerHandle | None:
        """A worker without sequences that could take such a sequence."""
        if fingerprint is None:
            found = self._least([router.loads.least() for router in self._routers.values()])
        else:
            accounts = [
                *([self._routers[fingerprint].loads] if fingerprint in self._routers else []),
                *([self._beside[fingerprint]] if fingerprint in self._beside else []),
            ]
            found = self._least([loads.least() for loads in accounts])
        return found if found is not None and not self.n_on(found) else None

    def least_busy(self) -> WorkerHandle | None:
        """The open worker to ask a question: one with the fewest sequences, of a model that is no
        canary if there is one."""
        others = [one for print_, one in self._routers.items() if print_ != self.aside]
        found = self._least([router.loads.quietest() for router in others])
        if found is None and self.aside in self._routers:
            found = self._least([self._routers[self.aside].loads.quietest()])
        return found
