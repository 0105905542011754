"""How long sequences and questions may wait without a worker. The clock is an argument."""

import math
from collections.abc import Callable

from supervisor.dispatch import recovery
from supervisor.dispatch.job import Job, Stage
from supervisor.dispatch.job_table import JobTable
from supervisor.dispatch.pool import WorkerPool
from supervisor.dispatch.questions import Questions
from supervisor.dispatch.suspects import Suspects


class OutageLimit:
    """Owned by one model's group. The time of a load that gets on is no outage."""

    def __init__(
        self,
        table: JobTable,
        pool: WorkerPool,
        questions: Questions,
        suspects: Suspects,
        clock: Callable[[], float],
        lacking: Callable[[], str],
    ) -> None:
        """`lacking` says why the model has no worker now, for people."""
        self._table = table
        self._pool = pool
        self._questions = questions
        self._suspects = suspects
        self._clock = clock
        self._lacking = lacking
        self._load_got_on_at = -math.inf

    def load_got_on(self) -> None:
        """A worker of the model is loading: the time until now is no outage. The fleet gives a
        load up that makes no progress."""
        self._load_got_on_at = self._clock()

    def expire(self) -> float | None:
        """End the sequences that have waited too long without a worker.

        Returns the seconds until the next one may be due; None if no sequence waits for a worker.
        """
        limit = self._clock() - recovery.MAX_OUTAGE_S
        has_worker = self._pool.has(None)
        if self._load_got_on_at <= limit:
            self._expire(limit, has_worker=has_worker)
        waiting = [job.waits_since for job in self._table.jobs.values() if self._lacks(job)]
        if not waiting and not self._questions.is_waiting(has_worker=has_worker):
            return None
        first = max(self._load_got_on_at, min(waiting, default=self._clock()))
        return max(0.0, first - limit)

    def _expire(self, limit: float, *, has_worker: bool) -> None:
        for job in list(self._table.jobs.values()):
            if job.stage is not Stage.ENDED and job.waits_since <= limit and self._lacks(job):
                began = bool(job.log.epochs)
                error = recovery.outage_over_limit(self._lacking(), began=began)
                self._table.fail(job.stream, error)
        error = recovery.outage_over_limit(self._lacking(), began=False)
        self._questions.expire(limit, error, has_worker=has_worker)

    def _lacks(self, job: Job) -> bool:
        """Whether it has no worker, and no worker may or could take it."""
        is_held = job.log.no in self._suspects.accused
        return job.worker is None and (is_held or not self._pool.has(job.bound_to))
