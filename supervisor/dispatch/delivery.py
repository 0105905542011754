"""The tokens of an engine step: first into the logs, then the readers are woken. The hot path."""

import logging

from gpufc.errors import InternalError, LinkError
from gpufc.protocol import Cancel, Delta, Step
from supervisor.dispatch.job import LISTENED_TO, Job, Stage
from supervisor.dispatch.job_table import JobTable
from supervisor.dispatch.ledger import ModelLedger
from supervisor.dispatch.suspects import Suspects
from supervisor.fleet.port import WorkerHandle

logger = logging.getLogger(__name__)


class Delivery:
    """Owned by one model's group."""

    def __init__(self, table: JobTable, suspects: Suspects, ledger: ModelLedger) -> None:
        self._table = table
        self._suspects = suspects
        self._ledger = ledger

    def deliver(self, worker: WorkerHandle, step: Step, now: float) -> bool:
        """True if a slot may have become free. `now` is in monotonic seconds."""
        jobs, suspects = self._table.jobs, self._suspects
        n_tokens = 0
        freed = False
        for started in step.started:
            job = jobs.get(started.request)
            if job is not None and job.worker is worker:
                self._started(job, started.n_cached)
        for delta in step.deltas:
            n_tokens += delta.n_generated
            job = jobs.get(delta.request)
            if job is None or job.worker is not worker:
                continue
            if job.stage in LISTENED_TO:
                self._append(job, delta, now)
                if suspects.open and suspects.gained(delta.request, len(job.log.tokens)):
                    self._cleared(job)
                    freed = True
            if delta.finish is not None and job.stage is not Stage.ENDED:
                self._table.end(job)
                freed = True
        self._ledger.tokens.recomputed += step.n_recomputed
        if n_tokens:
            self._ledger.generated(n_tokens, worker.name, now)
        return freed

    def _started(self, job: Job, n_cached: int) -> None:
        self._table.filled(job, n_cached)
        # the choices of a request share their prompt
        if job.log.started(n_cached) and job.log.choice == 0:
            self._ledger.tokens.prompt_cached += job.log.n_cached or 0

    def _append(self, job: Job, delta: Delta, now: float) -> None:
        log = job.log
        try:
            if not log.append(delta, log.epochs[-1]):
                return
        except LinkError as err:
            logger.error("stream_gap request=%s error=%s", job.stream.request.id, err)
            self._table.fail(job.stream, InternalError("The engine lost tokens"))
            return
        if delta.tokens:
            if job.loss is not None:
                job.went_on(now)
            if job.n_unfilled:
                self._table.filled(job, job.n_unfilled)
            self._time(job, len(delta.tokens), now)
        if log.watch is not None and log.is_enough(delta.text):
            self._table.stop(job)
        if delta.text or delta.finish is not None:
            job.stream.notify(log.index)

    def _time(self, job: Job, n_tokens: int, now: float) -> None:
        if job.run is not None and job.run.first_at is None:
            job.run.first_at = now
        if job.last_token_at is None:
            self._time_first(job, n_tokens, now)
        else:
            self._ledger.inter_token.add((now - job.last_token_at) / n_tokens)
            if job.is_resuming:
                job.is_resuming = False
                self._ledger.resume_gap.add(now - job.last_token_at)
        job.last_token_at = now

    def _time_first(self, job: Job, n_tokens: int, now: float) -> None:
        job.stream.timings.gained_first(now)
        job.is_resuming = False
        since_accepted = now - self._table.accepted_at(job.stream)
        if len(job.log.tokens) > n_tokens:  # it began at another front, which has counted the first
            self._ledger.resume_gap.add(since_accepted)
        else:
            self._ledger.time_to_first_token.add(since_accepted)

    def _cleared(self, job: Job) -> None:
        """A suspect has gained a token. While others are open it pauses: each runs alone."""
        if self._suspects and job.stage is Stage.RUNNING and job.worker is not None:
            job.stage = Stage.PAUSING
            job.worker.send(Cancel(job.worker.epoch, job.log.no))
