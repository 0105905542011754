"""One sequence on its way through its model's group."""

from enum import StrEnum

from gpufc.ids import RequestNo, WorkerName
from supervisor.dispatch.losses import Loss
from supervisor.dispatch.stream import ResponseStream
from supervisor.dispatch.stream_log import StreamLog
from supervisor.dispatch.timings import Run
from supervisor.fleet.port import WorkerHandle
from supervisor.routing.port import Arrival


class Stage(StrEnum):
    """The stages of a sequence.

    PREPARING waits for its prompt's tokens, READY for a slot. A PAUSING sequence is taken off its
    worker and becomes READY again, because another suspect is tried alone. A CANCELLING sequence
    keeps its slot until its worker has stopped it.
    """

    PREPARING = "preparing"
    READY = "ready"
    RUNNING = "running"
    PAUSING = "pausing"
    CANCELLING = "cancelling"
    ENDED = "ended"


LISTENED_TO = frozenset({Stage.RUNNING, Stage.PAUSING})
"""The stages in which a worker's deltas are logged."""


class Job:
    """A log with its stage. Only the group changes it.

    `worker` is set exactly while RUNNING, PAUSING or CANCELLING. `question` is the number of the
    question that prepares the prompt, for all its choices at once. `line` is the line of workers
    that it ran on last (`WorkerHandle.line`). `waits_since` is when it was accepted or last lost
    its worker. `run` is the newest one. `arrival` is the sequence as the routing sees it, once it
    is prepared. `preferred` are the workers that a policy wants it on. Its worker has not computed
    `n_unfilled` of its tokens yet. It `has_place` among its worker's sequences until it has
    stopped, or, where it gives its slot to another owner, until the worker is told to stop it.
    `is_resuming` until the first token after a replay. `loss` is the one that it has not got over
    yet. Times are monotonic seconds.
    """

    __slots__ = (
        "arrival",
        "has_place",
        "is_resuming",
        "last_token_at",
        "line",
        "log",
        "loss",
        "n_unfilled",
        "preferred",
        "principal",
        "question",
        "run",
        "sent_at",
        "stage",
        "stream",
        "waits_since",
        "worker",
    )

    def __init__(
        self,
        log: StreamLog,
        stream: ResponseStream,
        question: RequestNo,
        now: float,
        principal: str = "",
    ) -> None:
        """`principal` is the name of the request's, for policies."""
        self.log = log
        self.stream = stream
        self.question = question
        self.principal = principal
        self.stage = Stage.PREPARING
        self.worker: WorkerHandle | None = None
        self.run: Run | None = None
        self.line: int | None = None
        self.sent_at = 0.0
        self.last_token_at: float | None = None
        self.is_resuming = False
        self.arrival = Arrival()
        self.preferred: tuple[WorkerName, ...] = ()
        self.n_unfilled = 0
        self.has_place = False
        self.loss: Loss | None = None
        self.waits_since = now

    def start(self, worker: WorkerHandle, now: float) -> None:
        """READY → RUNNING. The log has yet to note the worker's epoch."""
        self.stage, self.worker, self.sent_at = Stage.RUNNING, worker, now
        self.line = worker.line
        self.run = Run(
            *(worker.name, worker.epoch, self.log.index, now),
            n_known=len(self.log.tokens),
            is_replay=bool(self.log.epochs),
        )
        self.stream.timings.runs.append(self.run)

    @property
    def has_begun(self) -> bool:
        """Whether its request has a token in any choice. Then the rest of the answer has to come
        from the same model."""
        return any(log.tokens for log in self.stream.logs)

    @property
    def is_stuck(self) -> bool:
        """Whether it has no new token since it was sent to a worker."""
        return self.log.fruitless_dispatches > 0

    def interrupted(self, loss: Loss) -> None:
        """It has lost its worker."""
        self.gave_up()
        self.loss = loss
        loss.n_sequences += 1

    def went_on(self, now: float) -> None:
        """It has its next token after the loss of a worker."""
        if self.loss is not None:
            self.loss.went_on(self.stream.request.id, self.last_token_at, now)
            self.loss = None

    def gave_up(self) -> None:
        """It ends, or loses another worker, without a token since the loss before."""
        if self.loss is not None:
            self.loss.ended()
            self.loss = None

    @property
    def bound_to(self) -> str | None:
        """The only fingerprint it can continue on; None for any."""
        logs = (self.log, *self.stream.logs)
        return next((log.fingerprint for log in logs if log.tokens), None)
