"""Carries out what `suspects` and `recovery` decide about the sequences of a lost worker."""

import logging
from collections.abc import Callable, Sequence

from gpufc.errors import EngineCrashSuspect
from gpufc.ids import RequestNo
from gpufc.protocol import Step
from supervisor.dispatch import recovery
from supervisor.dispatch.admission import Admission
from supervisor.dispatch.job import Job, Stage
from supervisor.dispatch.job_table import JobTable
from supervisor.dispatch.ledger import ModelLedger
from supervisor.dispatch.losses import Loss, Losses
from supervisor.dispatch.questions import Questions
from supervisor.dispatch.request import GenerationRequest
from supervisor.dispatch.suspects import (
    Judgement,
    Quarantine,
    Suspects,
    Victim,
    fingerprint,
    incriminates,
)
from supervisor.fleet.exit_reason import ExitReason
from supervisor.fleet.port import WorkerHandle

logger = logging.getLogger(__name__)


class Verdicts:
    """Owned by one model's group.

    Invariant: an accused sequence is READY and set aside in the admission until it is judged.
    """

    def __init__(
        self,
        table: JobTable,
        suspects: Suspects,
        questions: Questions,
        admission: Admission,
        ledger: ModelLedger,
        losses: Losses,
        clock: Callable[[], float],
    ) -> None:
        self._table = table
        self._suspects = suspects
        self._questions = questions
        self._admission = admission
        self._ledger = ledger
        self._losses = losses
        self._clock = clock
        self._quarantine = Quarantine()
        self._deaths: dict[RequestNo, tuple[WorkerHandle, ExitReason]] = {}
        """The death that each accused sequence is accused of."""

    def check(self, request: GenerationRequest) -> None:
        """Raises `EngineCrashSuspect` for a request that has been convicted."""
        if self._quarantine.holds(request, self._clock()):
            raise EngineCrashSuspect("An equal request killed the engine; it is refused for now")

    def loss_of(self, worker: WorkerHandle, orphans: Sequence[Job], reason: ExitReason) -> Loss:
        """Note the loss of a worker, before its sequences and questions are taken off it."""
        is_asked = self._questions.asked_of(worker.epoch) > 0
        return self._losses.began(
            worker,
            reason,
            self._clock(),
            is_unprovoked=not is_asked and not any(job.is_stuck for job in orphans),
        )

    def accuse(
        self,
        worker: WorkerHandle,
        orphans: Sequence[Job],
        reason: ExitReason,
        *,
        in_company: bool = False,
    ) -> RequestNo | None:
        """The sequence that a worker's death is held against; `in_company` as in `Suspects.died`.
        To be called before its sequences are taken off it."""
        accused = self._suspects.died(
            _victims(orphans, reason), reason, self._clock(), in_company=in_company
        )
        self._deaths = {no: death for no, death in self._deaths.items() if no in self._table.jobs}
        if accused is not None:
            self._deaths[accused] = (worker, reason)
        return accused

    def recover(
        self,
        worker: WorkerHandle,
        orphans: Sequence[Job],
        reason: ExitReason,
        accused: RequestNo | None,
    ) -> None:
        """Decide about the sequences that have been taken off a lost worker."""
        for job in orphans:
            if job.stage is not Stage.READY:
                continue  # it has ended with another sequence of its request
            if job.log.no == accused:
                self._admission.set_aside(accused)
            else:
                self._recover(job, worker.model, reason)

    def engine_proven(self) -> None:
        """A worker has just passed its trial."""
        self._apply(self._suspects.trial_passed())
        self._questions.trials.trial_passed(self._clock())

    def stepped(self, step: Step) -> bool:
        """A worker's step: whether it has judged a request. Nearly all steps change nothing."""
        if not self._suspects.needs_tokens and not self._questions.trials.accused:
            return False
        gained = [delta.request for delta in step.deltas if delta.tokens]
        for number in gained:
            self._apply(self._suspects.token_gained(number))
        if gained:
            self._questions.trials.proven(self._clock())
        return bool(gained)

    def renew(self) -> None:
        """The engine is another one, or has been restarted by an operator: no verdict stands."""
        self._apply(self._suspects.forget())
        self._quarantine.clear()
        self._questions.trials.forgive()

    def _apply(self, judgement: Judgement) -> None:
        for no, n_deaths in judgement.convicts.items():
            self._convict(no, n_deaths)
        if judgement.is_engine_sick:
            logger.error("convictions_withdrawn: the engine fails at different requests in a row")
            self._quarantine.clear()
        for no in judgement.acquitted:
            worker, reason = self._deaths.pop(no)
            job = self._table.jobs.get(no)
            if job is not None:  # else it has ended with another sequence of its request
                self._admission.come_back(no, job.log.n_known)
                self._recover(job, worker.model, reason)

    def _convict(self, no: RequestNo, n_deaths: int) -> None:
        worker, reason = self._deaths.pop(no)
        worker.explain_deaths(n_deaths)
        job = self._table.jobs.get(no)
        if job is None:  # it has ended with another convict of its request
            return
        stream = job.stream
        logger.warning("request_convicted request=%s", stream.request.id)
        self._quarantine.add(stream.request, self._clock())
        self._table.fail(
            stream, EngineCrashSuspect(f"This request ended the engine repeatedly: {reason}")
        )

    def _recover(self, job: Job, model: str, reason: ExitReason) -> None:
        has_killer = self._losses.has_killer(model, self._clock())
        match recovery.decide(job.log, reason, has_killer=has_killer):
            case recovery.Replay():
                job.is_resuming = True
                self._ledger.replayed()
            case recovery.Fail(error):
                self._table.fail(job.stream, error)


def _victims(orphans: Sequence[Job], reason: ExitReason) -> list[Victim]:
    """The sequences that a lost worker was computing: its last batch, if it could name it."""
    if not incriminates(reason):
        return []
    named = set(reason.requests)
    logs = [job.log for job in orphans if not named or job.log.no in named]
    return [Victim(log.no, fingerprint(log.request, log.index), len(log.tokens)) for log in logs]
