"""Lines of workers that are on their way out, and whether anything still needs them. Pure.

A line is kept for as long as something that has begun can only go on there: also while it has no
worker, since the fleet is starting one then.
"""

from collections.abc import Iterable

from supervisor.dispatch.job import Job
from supervisor.dispatch.pool import WorkerPool
from supervisor.fleet.port import WorkerHandle


class DrainingLines:
    """At most one handle for each line: of the worker that it has now, or had last."""

    def __init__(self) -> None:
        self._workers: dict[int, WorkerHandle] = {}

    def __bool__(self) -> bool:
        return bool(self._workers)

    def add(self, worker: WorkerHandle) -> None:
        """The fleet wants this worker's line to end."""
        self._workers[worker.line] = worker

    def serves(self, fingerprint: str | None) -> bool:
        """Whether a line, now or when it is back, can go on with such sequences."""
        return any(worker.facts.fingerprint == fingerprint for worker in self._workers.values())

    def settle(self, jobs: Iterable[Job], pool: WorkerPool) -> None:
        """Tell the workers that nothing needs any more, each once."""
        jobs = list(jobs)
        for line, worker in list(self._workers.items()):
            if not any(_needs(job, worker, pool) for job in jobs):
                del self._workers[line]
                worker.drained()


def _needs(job: Job, worker: WorkerHandle, pool: WorkerPool) -> bool:
    if job.worker is not None:
        return job.worker.line == worker.line
    if not job.has_begun or job.log.fingerprint != worker.facts.fingerprint:
        return False
    return not pool.has_open(worker.facts.fingerprint)
