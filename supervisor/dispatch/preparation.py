"""From an accepted sequence to one that may start: its prompt's tokens, and a grammar that is known
only then.

    PREPARING ── Prepare(prompt) ──▶ Prepared ── Prepare(constraint) ──▶ Prepared ──▶ READY
                                        └──── the reading has no constraint ────────────▲
"""

from collections.abc import Callable

from gpufc.constraint import Constraint
from gpufc.errors import InternalError
from gpufc.protocol import Prepare, Prepared, TextPrompt
from supervisor.dispatch.job import Stage
from supervisor.dispatch.job_table import JobTable
from supervisor.dispatch.ledger import ModelLedger
from supervisor.dispatch.pool import WorkerPool
from supervisor.dispatch.question import Answer, Question
from supervisor.dispatch.questions import Questions
from supervisor.dispatch.stream import ResponseStream
from supervisor.dispatch.stream_log import StreamLog

NO_PROMPT = TextPrompt(".")
"""Stands where only a constraint is to be compiled."""


class Preparation:
    """Owned by one model's group."""

    def __init__(
        self,
        table: JobTable,
        pool: WorkerPool,
        questions: Questions,
        ledger: ModelLedger,
        clock: Callable[[], float],
        ready: Callable[[list[StreamLog]], None],
    ) -> None:
        """`ready` is called with a prompt's choices when they have all that they need."""
        self._table = table
        self._pool = pool
        self._questions = questions
        self._ledger = ledger
        self._clock = clock
        self._ready = ready

    def begin(self, stream: ResponseStream, logs: list[StreamLog]) -> None:
        """Ask a worker for the tokens of one prompt, once for all its choices."""
        no, request = logs[0].no, stream.request
        now = self._clock()
        for log in logs:
            self._table.jobs[log.no].question = no
            self._table.jobs[log.no].stage = Stage.PREPARING
        prompt, reserve = request.prompts[logs[0].prompt_index], request.max_tokens or 0
        self._questions.add(
            Question(
                no,
                lambda epoch: Prepare(epoch, no, prompt, reserve, request.constraint),
                answered=lambda answer: self._prepared(logs, answer),
                failed=lambda error: self._table.fail(stream, error),
                since=now,
            )
        )

    def _prepared(self, logs: list[StreamLog], answer: Answer) -> None:
        if not isinstance(answer, Prepared):
            self._table.fail(
                self._table.jobs[logs[0].no].stream,
                InternalError("The engine answered a different question"),
            )
            return
        tokens = tuple(answer.prompt_tokens)
        if logs[0].fingerprint is None:
            self._ledger.tokens.prompt += len(tokens)
        for log in logs:
            fingerprint = self._pool.fingerprint(answer.epoch)
            log.prepared(tokens, answer.opening, fingerprint)
        constraint = logs[0].reading.constraint
        if constraint is None:
            self._ready(logs)
        else:
            self._compile(logs, constraint)

    def _compile(self, logs: list[StreamLog], constraint: Constraint) -> None:
        """Ask a worker to compile the constraint that the reading of an answer has, before a slot
        is held for it. It is known only once the prompt's end is."""
        no, stream = logs[0].no, self._table.jobs[logs[0].no].stream
        self._questions.add(
            Question(
                no,
                lambda epoch: Prepare(epoch, no, NO_PROMPT, None, constraint),
                answered=lambda _: self._ready(logs),
                failed=lambda error: self._table.fail(stream, error),
                since=self._clock(),
            )
        )
