"""The sequences of one model that have not ended, and the requests that they belong to.

Every end of a sequence, and every loss of its worker, goes through here, so that its place, its
worker's count and its request's end are settled together and once.
"""

import math
from collections.abc import Callable, Sequence

from gpufc.errors import RequestError
from gpufc.facts import ModelFacts
from gpufc.ids import RequestNo
from gpufc.protocol import Cancel
from supervisor.dispatch.admission import Admission
from supervisor.dispatch.conversion import to_arrival
from supervisor.dispatch.job import Job, Stage
from supervisor.dispatch.ledger import ModelLedger
from supervisor.dispatch.pool import WorkerPool
from supervisor.dispatch.questions import Questions
from supervisor.dispatch.request import Account, GenerationRequest
from supervisor.dispatch.stream import ResponseStream
from supervisor.dispatch.stream_log import StreamLog
from supervisor.dispatch.suspects import Suspects
from supervisor.fleet.port import WorkerHandle

FORECAST_S = 0.5
"""A count of the tokens that are left serves so long: every refusal asks for it."""

_WEIGHT = 0.1
"""Weight of one job in the moving average of used tokens: it covers about ten requests."""


class JobTable:
    """Owned by one model's group.

    Invariant: each job in `jobs` is in exactly the matching set of the admission; a job leaves both
    at once, when it ENDs. `streams` maps each open request to the time of its acceptance (monotonic
    seconds) and the number of its jobs that are left.
    """

    def __init__(
        self,
        admission: Admission,
        questions: Questions,
        pool: WorkerPool,
        suspects: Suspects,
        ledger: ModelLedger,
        clock: Callable[[], float],
        on_idle: Callable[[], None],
    ) -> None:
        self.jobs: dict[RequestNo, Job] = {}
        self.streams: dict[ResponseStream, tuple[float, int]] = {}
        self._accounts: dict[ResponseStream, Account] = {}
        self._admission = admission
        self._questions = questions
        self._pool = pool
        self._suspects = suspects
        self._ledger = ledger
        self._clock = clock
        self._on_idle = on_idle
        self._used_share = 1.0
        self._left: tuple[list[int], float] = [], -math.inf
        self.on_ended: Callable[[ResponseStream], None] = lambda _stream: None
        """Called when the last job of a request has ended."""
        admission.forecast = self.forecast
        admission.n_made = lambda no: len(self.jobs[no].log.tokens)

    def open(
        self,
        request: GenerationRequest,
        logs: Sequence[StreamLog],
        on_cancel: Callable[[ResponseStream], None],
        facts: Callable[[], ModelFacts | None],
        account: Account | None = None,
        principal: str = "",
    ) -> ResponseStream:
        """Add the sequences of a request that the admission has accepted. Some may have ended
        already, at another front.

        They are open in the `account` until the last of them has ended. `facts` gives the
        model's facts until one of the request's prompts has been prepared. `principal` is a name.
        """

        def fingerprint() -> str | None:
            now = facts()
            return logs[0].fingerprint or (now.fingerprint if now else None)

        accepted_at = self._clock()
        stream = ResponseStream(
            request,
            logs,
            on_cancel=on_cancel,
            on_attention=self._attention_changed,
            fingerprint=fingerprint,
            submitted_at=accepted_at,
        )
        left = [log for log in logs if not log.ended]
        if left:
            self.streams[stream] = (accepted_at, len(left))
        if account is not None:
            account.open(len(logs))
            self._accounts[stream] = account
            if not left:
                self._close_account(stream, 0.0)
        for log in left:
            self.jobs[log.no] = Job(log, stream, log.no, accepted_at, principal)
        return stream

    def accepted_at(self, stream: ResponseStream) -> float:
        """When an open request was accepted (monotonic seconds)."""
        return self.streams[stream][0]

    def fail(self, stream: ResponseStream, error: RequestError) -> None:
        """End a whole request with the error of one of its sequences."""
        if stream.error is None and not stream.cancelled:
            stream.fail(error)
        for log in stream.logs:
            if not log.ended:
                log.fail(error)
        self._withdraw_jobs(stream)

    def withdraw(self, stream: ResponseStream) -> None:
        """End a request without an error: its reader has left."""
        for log in stream.logs:
            if not log.ended:
                log.cancel()
        self._withdraw_jobs(stream)

    def _withdraw_jobs(self, stream: ResponseStream) -> None:
        for log in stream.logs:
            job = self.jobs.get(log.no)
            if job is None:
                continue
            self._questions.drop(job.question)
            if job.stage in (Stage.RUNNING, Stage.PAUSING):
                self.stop(job)
            elif job.stage is not Stage.CANCELLING:
                self.end(job)

    def stop(self, job: Job) -> None:
        """Let its worker stop a job whose log has ended. It keeps its slot until then."""
        if job.stage is Stage.RUNNING and job.worker is not None:
            job.worker.send(Cancel(job.worker.epoch, job.log.no))
        job.stage = Stage.CANCELLING

    def pause(self, job: Job) -> None:
        """Let its worker stop a running job. It waits again once that has happened. The worker
        obeys in order: what it is sent next may have the place at once."""
        if job.stage is Stage.RUNNING and job.worker is not None:
            job.stage = Stage.PAUSING
            job.worker.send(Cancel(job.worker.epoch, job.log.no))
            if self._admission.is_sharing(job.log.no):
                self._give_place_back(job, job.worker)

    def forecast(self, n_places: int) -> float | None:
        """When so many more jobs should have ended, in seconds: by the tokens that running ones may
        still generate, the part of them that others have used, and the rate of now."""
        now = self._clock()
        left, counted_at = self._left
        if not counted_at <= now < counted_at + FORECAST_S:
            left = sorted(_tokens_left(job) for job in self.jobs.values() if job.worker is not None)
            self._left = left, now
        rate = self._ledger.generation.lately(now)
        if not left or not rate:
            return None
        n_tokens = (
            left[n_places - 1] * len(left)
            if n_places <= len(left)
            else sum(left) * n_places / len(left)
        )
        return self._used_share * n_tokens / rate

    def _attention_changed(self, stream: ResponseStream, *, attended: bool) -> None:
        change = self._admission.attend if attended else self._admission.abandon
        for log in stream.logs:
            if log.no in self.jobs:
                change(log.no)

    def adapters_in_use(self) -> tuple[frozenset[str], frozenset[str]]:
        """The names of the LoRA adapters of running jobs, and of waiting ones."""
        running, waiting = set[str](), set[str]()
        for job in self.jobs.values():
            names = running if job.worker is not None else waiting
            names.update(use.name for use in job.log.request.adapters)
        return frozenset(running), frozenset(waiting)

    def prepared(self, no: RequestNo) -> None:
        """A job's prompt has been prepared: it waits for its owner's turn."""
        self.ready(no)
        self._admission.prepared(no, self.jobs[no].log.batching.later)

    def ready(self, no: RequestNo) -> None:
        """A job has all that it needs to start: it waits for a slot."""
        job = self.jobs[no]
        job.stage, job.arrival = Stage.READY, to_arrival(job.log)

    def attach(self, job: Job, worker: WorkerHandle) -> None:
        """Give a job to a worker: it runs."""
        self._pool.took(worker, job.arrival)
        job.has_place = True
        job.start(worker, self._clock())
        job.n_unfilled = job.arrival.n_tokens

    def filled(self, job: Job, n_tokens: int) -> None:
        """Its worker has computed so many more of its tokens, or found them in its cache."""
        if job.worker is not None:
            n_tokens = min(n_tokens, job.n_unfilled)
            job.n_unfilled -= n_tokens
            self._pool.prefilled(job.worker, n_tokens)

    def detach(self, job: Job, *, was_lost: bool = False) -> None:
        """Take a job off its worker, which may have been lost: it waits again."""
        if job.worker is not None:
            self._give_place_back(job, job.worker)
            job.arrival = to_arrival(job.log)
        if job.run is not None:
            job.run.ended_at, job.run.was_lost = self._clock(), was_lost
        job.stage, job.worker = Stage.READY, None
        self._admission.put_back(job.log.no, job.log.n_known)

    def _give_place_back(self, job: Job, worker: WorkerHandle) -> None:
        if job.has_place:
            self._pool.gave_back(worker, job.n_unfilled)
            job.has_place, job.n_unfilled = False, 0

    def end(self, job: Job) -> None:
        """Free the job's place. The caller has settled its log's end before."""
        now = self._clock()
        if job.run is not None and job.run.ended_at is None:
            job.run.ended_at = now
        if job.worker is not None:
            self._give_place_back(job, job.worker)
            self._admission.note_service_time(now - job.sent_at)
            n_used = len(job.log.tokens)
            self._used_share += _WEIGHT * (
                n_used / max(1, n_used + _tokens_left(job)) - self._used_share
            )
        job.stage, job.worker = Stage.ENDED, None
        job.gave_up()
        del self.jobs[job.log.no]
        self._suspects.left(job.log.no)
        self._admission.release(job.log.no)
        accepted_at, left = self.streams.pop(job.stream)
        if left > 1:
            self.streams[job.stream] = (accepted_at, left - 1)
        else:
            job.stream.timings.ended_at = now
            stream = job.stream
            self._ledger.ended(stream.outcome, now - accepted_at, stream.end_reason)
            self._close_account(stream, now - accepted_at)
            self.on_ended(stream)
        if not self.jobs:
            self._on_idle()

    def _close_account(self, stream: ResponseStream, seconds: float) -> None:
        account = self._accounts.pop(stream, None)
        if account is not None:
            used = stream.usage
            account.close(len(stream.logs), used.prompt + used.completion, seconds)


def _tokens_left(job: Job) -> int:
    """How many tokens a job on a worker may still generate."""
    log = job.log
    most = 0 if job.worker is None else job.worker.facts.n_ctx - len(log.prompt_tokens or ())
    asked = log.request.max_tokens
    return max(0, (most if asked is None else min(asked, most)) - len(log.tokens))
