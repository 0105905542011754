"""The sequences of one model, from acceptance to their terminal state, and its ready workers.

    submit ──▶ PREPARING ──Prepared──▶ READY ──a free slot──▶ RUNNING ──finish──▶ ENDED
                                         ▲                       │ │
                                         └── Replay ◀─ worker lost │ cancel, error
                                                                   ▼
                                                 ENDED ◀─Finished─ CANCELLING

A cancelled sequence keeps its slot until its worker says that it has stopped. `admission`,
`recovery`, `suspects` and the strategies of `supervisor.routing` decide; this module applies their
decisions to messages, and `delivery` handles the messages with tokens. No asyncio; the clock is an
argument.
"""

import logging
from collections.abc import Callable, Iterator, Sequence

from gpufc.config import AdmissionConfig
from gpufc.errors import EngineUnavailable, InternalError, LinkError, RequestError, from_wire
from gpufc.facts import ModelFacts
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Refused, Step
from supervisor.dispatch import recovery
from supervisor.dispatch.admission import Admission
from supervisor.dispatch.advising import Adviser, Advising
from supervisor.dispatch.canary_split import CanarySplit
from supervisor.dispatch.conversion import to_generate
from supervisor.dispatch.delivery import Delivery
from supervisor.dispatch.draining import DrainingLines
from supervisor.dispatch.embedding_turns import EmbeddingTurns
from supervisor.dispatch.held import Held
from supervisor.dispatch.job import Job, Stage
from supervisor.dispatch.job_table import JobTable
from supervisor.dispatch.ledger import ModelLedger
from supervisor.dispatch.losses import Losses
from supervisor.dispatch.outage_limit import OutageLimit
from supervisor.dispatch.overview import OpenRequest
from supervisor.dispatch.pool import WorkerPool
from supervisor.dispatch.preparation import Preparation
from supervisor.dispatch.question import Answer
from supervisor.dispatch.questions import Questions
from supervisor.dispatch.request import GenerationRequest, Principal
from supervisor.dispatch.stream import ResponseStream
from supervisor.dispatch.stream_log import Restore, StreamLog, logs_of
from supervisor.dispatch.suspects import Suspects
from supervisor.dispatch.usage import Usage
from supervisor.dispatch.verdicts import Verdicts
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.port import WorkerHandle
from supervisor.routing.canary import Canary

logger = logging.getLogger(__name__)


class ModelGroup:
    """The sequences and workers of one model. Only the dispatcher calls it, in the event loop.

    It decides which sequence starts next and on which worker; `job_table.py` keeps the accounts of
    each job. `ready` has the facts of the latest worker, also while there is none.
    """

    def __init__(
        self,
        limits: AdmissionConfig,
        *,
        replicas: int,
        numbers: Iterator[RequestNo],
        ledger: ModelLedger,
        losses: Losses,
        clock: Callable[[], float],
        on_idle: Callable[[], None],
        lacking: Callable[[], str] = lambda: "",
        adviser: Callable[[], Adviser | None] = lambda: None,
    ) -> None:
        """`lacking` says why the model has no worker now, for people. `adviser` gives the
        operator's policies, if there are any."""
        self.admission = Admission(limits, replicas)
        self.questions = Questions()
        self.facts: ModelFacts | None = None
        self.embedding = EmbeddingTurns()
        """Of requests for embeddings. The dispatcher enters them."""
        self._numbers = numbers
        self._ledger = ledger
        self._clock = clock
        self._pool = WorkerPool(limits.max_concurrent_requests, limits.routing)
        self._suspects = Suspects()
        self._draining = DrainingLines()
        self._table = JobTable(
            self.admission, self.questions, self._pool, self._suspects, ledger, clock, on_idle
        )
        self._verdicts = Verdicts(
            self._table, self._suspects, self.questions, self.admission, ledger, losses, clock
        )
        advising = Advising(self._table, self._pool, self.admission, adviser, self.pump)
        self._preparation = Preparation(
            self._table, self._pool, self.questions, ledger, clock, advising.prepared
        )
        self._delivery = Delivery(self._table, self._suspects, ledger)
        self.outage = OutageLimit(
            self._table, self._pool, self.questions, self._suspects, clock, lacking
        )
        self._split = CanarySplit()
        self._held = Held(self.admission)
        self._table.on_ended = self._split.ended

    @property
    def idle(self) -> bool:
        """Whether no sequence is left, cancelling ones included, and no embedding."""
        return not (self._table.jobs or self.embedding.n_requests)

    @property
    def has_worker(self) -> bool:
        """Whether there is a worker for new sequences."""
        return self._pool.has(None)

    def usage(self) -> Usage:
        """Its requests now: on each worker, and without one."""
        workers = self._pool.outstanding.items()
        return Usage(
            sum(job.worker is None for job in self._table.jobs.values()) + self.questions.n_unasked,
            {no: n + self.questions.asked_of(no) + self.embedding.n_requests for no, n in workers},
            self.has_worker,
        )

    def open(self, epoch: Epoch, *, is_open: bool) -> None:
        """Give a worker new sequences and questions, or none any more."""
        self._pool.open(epoch, is_open=is_open)
        self._workers_changed()

    def adapters_in_use(self) -> tuple[frozenset[str], frozenset[str]]:
        """The names of the LoRA adapters of running sequences, and of waiting ones."""
        return self._table.adapters_in_use()

    def open_requests(self) -> Iterator[OpenRequest]:
        """The requests that have not ended, in the order of their acceptance."""
        jobs = self._table.jobs
        for stream in self._table.streams:
            yield OpenRequest(stream, [jobs[log.no] for log in stream.logs if log.no in jobs])

    # requests

    def submit(self, request: GenerationRequest, principal: Principal) -> ResponseStream:
        """Accept a request.

        Raises `InvalidRequest`, `Overloaded`, `RateLimited` or `EngineCrashSuspect`, and then keeps
        nothing of it.
        """
        self._verdicts.check(request)
        logs = logs_of(request, self._numbers, principal.cache_scope, yields=principal.yields)
        if principal.account is not None:
            principal.account.require_room(len(logs))
        numbers = [log.no for log in logs]
        self.admission.accept(numbers, principal.owner, yields=principal.yields)
        stream = self._opened(request, logs, principal)
        for start in range(0, len(logs), request.n):
            self._preparation.begin(stream, logs[start : start + request.n])
        self.pump()
        return stream

    def _opened(
        self, request: GenerationRequest, logs: Sequence[StreamLog], principal: Principal
    ) -> ResponseStream:
        of = principal.account, principal.shown
        return self._table.open(request, logs, self._withdraw, lambda: self.facts, *of)

    def resume(self, log: StreamLog) -> ResponseStream:
        """Continue a sequence that another front has begun: its log has a prompt and tokens."""
        stream = self._table.open(log.request, [log], self._withdraw, lambda: self.facts)
        log.fingerprint = self.facts.fingerprint if self.facts else None
        self._table.ready(log.no)
        self.admission.take_in(log.no, log.n_known)
        self.pump()
        return stream

    def go_on(
        self, request: GenerationRequest, principal: Principal, restore: Restore
    ) -> ResponseStream:
        """Continue a request that another cell has begun. `restore` gives its logs the tokens, and
        the ends, that were made there; those without a prompt are prepared."""
        logs = logs_of(request, self._numbers, principal.cache_scope, yields=principal.yields)
        restore(logs)
        stream = self._opened(request, logs, principal)
        unprepared: dict[int, list[StreamLog]] = {}
        for log in logs:
            if log.ended:
                continue
            if log.prompt_tokens is None:
                self.admission.take_in_unprepared(log.no, principal.owner)
                unprepared.setdefault(log.prompt_index, []).append(log)
            else:
                self._table.ready(log.no)
                self.admission.take_in(log.no, log.n_known, principal.owner)
        for alike in unprepared.values():
            self._preparation.begin(stream, alike)
        self.pump()
        return stream

    def pump(self) -> None:
        """Start sequences while workers have room. Called whenever that may have changed."""
        if self.questions.any_unasked and (asked := self._pool.least_busy()) is not None:
            self._ask(asked)
        self.admission.n_beside = self._pool.n_beside
        is_full = self._pool.is_full
        while (no := self.admission.to_pause(is_full=is_full)) is not None:
            self._table.pause(self._table.jobs[no])
        while self._pool.has_any_room and (no := self._next()) is not None:
            job = self._table.jobs[no]
            worker = self._worker_for(job)
            if worker is not None:
                self._start(job, worker)
            elif not self._suspects and (job.bound_to or self._split.holds(job.stream)):
                self._held.hold(no, self._wanted(job), job.log.n_known)
            else:
                break
        if self._draining:
            self._draining.settle(self._table.jobs.values(), self._pool)

    def _workers_changed(self) -> None:
        """Other workers than before may take sequences."""
        self._held.all_come_back()
        self.pump()

    def _ask(self, worker: WorkerHandle) -> None:
        """Ask a worker the questions that wait."""
        self.questions.ask(worker, self._clock(), may_compute=self._may_compute(worker))
        self._pool.asked(worker)

    def _next(self) -> RequestNo | None:
        """The next sequence to start. While there are suspects, only one of them at a time, and
        none while a prompt is on trial for a worker's death."""
        if self.questions.on_trial:
            return None
        if not self._suspects:
            self._held.look(self._pool.has_room)
            return self.admission.next()
        suspects = [self._table.jobs[no] for no in self._suspects.open]
        if any(job.stage is not Stage.READY for job in suspects):
            return None
        return min(suspects, key=lambda job: job.log.n_known).log.no

    def _may_compute(self, worker: WorkerHandle) -> bool:
        """Whether a worker may get questions that are computed. A suspect runs alone; a question on
        trial goes first, as long as no suspect runs there."""
        is_alone = self.questions.on_trial and not self._pool.n_on(worker)
        return is_alone or not self._suspects

    def _worker_for(self, job: Job) -> WorkerHandle | None:
        """The worker for a sequence; a suspect's worker computes nothing else."""
        if not self._suspects:
            return self._pool.with_room(self._wanted(job), job.arrival, job.preferred)
        worker = self._pool.idle(job.bound_to)
        is_busy = worker is not None and self.questions.computes_on(worker)
        return None if is_busy else worker

    def _wanted(self, job: Job) -> str | None:
        """The fingerprint of the workers that may take a sequence; None for any."""
        return job.bound_to or self._split.wanted(job.stream, self._pool)

    def _start(self, job: Job, worker: WorkerHandle) -> None:
        if job.log.fingerprint != worker.facts.fingerprint:  # then it has not begun
            self.admission.prepare_again(job.log.no)
            self._preparation.begin(job.stream, [job.log])
            self._ask(worker)
            return
        self.admission.start(job.log.no)
        self._table.attach(job, worker)
        if job.stream.timings.started(job.sent_at) and not job.log.tokens:
            self._ledger.queue.add(job.stream.timings.queue_s)
        logger.debug(
            "sequence_sent request=%s choice=%d worker=%s epoch=%d tokens=%d",
            *(job.stream.request.id, job.log.index, worker.name, worker.epoch),
            len(job.log.tokens),
        )
        message = to_generate(job.log, worker.epoch)
        job.log.dispatched(worker.epoch)
        try:
            worker.send(message)
        except LinkError as err:  # larger than a message may be, which the limits should rule out
            logger.error("generate_unsendable request=%s error=%s", job.stream.request.id, err)
            self._table.detach(job)
            self._table.fail(job.stream, InternalError("The request is too large for the engine"))

    # workers

    def canary_began(self, worker: WorkerHandle, canary: Canary) -> None:
        """This worker, which is ready next, gets a share of the new requests."""
        self._split.began(worker, canary, self.facts.fingerprint if self.facts else None)
        self._pool.aside = self._split.fingerprint

    def worker_ready(self, worker: WorkerHandle) -> None:
        self._pool.add(worker)
        if worker.facts.fingerprint != self._split.fingerprint:
            if self.facts is not None and worker.facts.fingerprint != self.facts.fingerprint:
                self._verdicts.renew()
            self.facts = worker.facts
        for job in list(self._table.jobs.values()):
            if job.stage is Stage.READY and self._draining.strands(job, worker, self._pool):
                self._table.fail(job.stream, recovery.model_changed())
        self._workers_changed()

    def worker_draining(self, worker: WorkerHandle) -> None:
        self._pool.drain(worker)
        self._draining.add(worker)
        self._split.drains(worker)
        self._pool.aside = self._split.fingerprint
        if self._pool.newest is not None:
            self.facts = self._pool.newest.facts
        self._workers_changed()

    def worker_lost(self, worker: WorkerHandle, reason: ExitReason) -> None:
        now = self._clock()
        orphans = [job for job in self._table.jobs.values() if job.worker is worker]
        in_company = self.questions.may_have_killed(worker, reason, now)
        accused = self._verdicts.accuse(worker, orphans, reason, in_company=in_company)
        loss = self._verdicts.loss_of(worker, orphans, reason)
        for job in orphans:
            if job.stage is Stage.CANCELLING:
                self._table.end(job)
            else:
                self._table.detach(job, was_lost=True)
                job.interrupted(loss)
                job.waits_since = now
        self._pool.remove(worker)
        if reason.reason is Reason.UNLOADED:
            self.admission.replicas = max(1, self.admission.replicas - 1)
        self._verdicts.recover(worker, orphans, reason, accused)
        self.questions.lost(worker, reason, now, in_company=bool(orphans))
        self._workers_changed()

    def engine_proven(self, worker: WorkerHandle) -> None:
        """A worker, which may be a spare, has just passed its trial."""
        if self.facts is not None and worker.facts.fingerprint == self.facts.fingerprint:
            self._verdicts.engine_proven()
            self._workers_changed()

    def limits_changed(self, limits: AdmissionConfig) -> None:
        """The limits have new values; the admission reads them itself."""
        self._pool.resize(limits.max_concurrent_requests)
        self._workers_changed()

    def engine_renewed(self) -> None:
        """The model's workers have been restarted by an operator, or have another model."""
        self._verdicts.renew()
        self._workers_changed()

    def fingerprint(self, epoch: Epoch) -> str | None:
        """The fingerprint of the worker of this epoch, if it is ready."""
        return self._pool.fingerprint(epoch)

    def settle(self, worker: WorkerHandle, message: Answer) -> None:
        """A worker has answered a question."""
        self.questions.settle(message.request, worker.epoch, message, self._clock())
        self.pump()

    def refused(self, worker: WorkerHandle, message: Refused) -> None:
        """A worker has refused to prepare a prompt or to run a sequence."""
        error = from_wire(message.code, message.message, message.param)
        if not self.questions.settle(message.request, worker.epoch, error, self._clock()):
            job = self._table.jobs.get(message.request)
            if job is not None and job.worker is worker:
                self._table.detach(job)
                self._table.fail(job.stream, recovery.refusal_of(job.log, error))
        self.pump()

    def finished(self, worker: WorkerHandle, no: RequestNo) -> None:
        """A worker has stopped a sequence, as it was told to or by itself."""
        job = self._table.jobs.get(no)
        if job is not None and job.stage is Stage.CANCELLING and job.worker is worker:
            self._table.end(job)
        elif job is not None and job.stage is Stage.PAUSING and job.worker is worker:
            self._table.detach(job)
        elif job is not None and job.worker is worker:
            self._table.detach(job)
            self._table.fail(job.stream, InternalError("The engine gave the request up"))
        self.pump()

    def step(self, worker: WorkerHandle, step: Step) -> None:
        """A worker's engine step."""
        freed = self._delivery.deliver(worker, step, self._clock())
        if self._verdicts.stepped(step) or freed or self.admission.defers:
            self.pump()

    # ends

    def end_all(self, error: RequestError) -> None:
        """End every request with this error, running ones included."""
        self.questions.fail_all(error)
        for stream in list(self._table.streams):
            self._table.fail(stream, error)

    def fail_waiting(self, error: EngineUnavailable) -> None:
        """There will be no worker: end all requests, unless workers are left."""
        if not self._pool and not self._draining:
            self._verdicts.renew()
            self.end_all(error)

    def _withdraw(self, stream: ResponseStream) -> None:
        self._table.withdraw(stream)
        self.pump()
