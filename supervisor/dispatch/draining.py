"""Lines of workers that the fleet is draining, and whether a sequence still needs them. Pure.

A line is needed as long as a sequence that has begun can only continue there. That includes the
time while the line has no worker, because the fleet is starting one then.
"""

from collections.abc import Iterable

from supervisor.dispatch.job import Job
from supervisor.dispatch.pool import WorkerPool
from supervisor.fleet.port import WorkerHandle


class DrainingLines:
    """At most one handle for each line: that of its current worker, or of its last one."""

    def __init__(self) -> None:
        self._workers: dict[int, WorkerHandle] = {}

    def __bool__(self) -> bool:
        return bool(self._workers)

    def add(self, worker: WorkerHandle) -> None:
        """The fleet drains this worker's line."""
        self._workers[worker.line] = worker

    def serves(self, fingerprint: str | None) -> bool:
        """Whether a draining line serves this fingerprint, now or once its worker is back."""
        return any(worker.facts.fingerprint == fingerprint for worker in self._workers.values())

    def strands(self, job: Job, worker: WorkerHandle, pool: WorkerPool) -> bool:
        """Whether a job's line of workers came back, as `worker`, with a different model file."""
        bound_to = job.bound_to
        return (
            bound_to is not None
            and job.line == worker.line
            and not pool.has(bound_to)
            and not self.serves(bound_to)
        )

    def settle(self, jobs: Iterable[Job], pool: WorkerPool) -> None:
        """Tell each worker that is no longer needed that it has drained, once."""
        for line, worker in list(self._workers.items()):
            if not pool.n_on_line(line) and not _is_awaited(worker, jobs, pool):
                del self._workers[line]
                worker.drained()


def _is_awaited(worker: WorkerHandle, jobs: Iterable[Job], pool: WorkerPool) -> bool:
    """Whether a sequence without a worker could only continue on this one's line."""
    fingerprint = worker.facts.fingerprint
    if pool.has_open(fingerprint):
        return False
    return any(job.worker is None and job.bound_to == fingerprint for job in jobs)
