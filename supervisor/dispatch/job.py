"""One sequence on its way through its model's group."""

from enum import StrEnum

from gpufc.ids import RequestNo
from supervisor.dispatch.stream import ResponseStream
from supervisor.dispatch.stream_log import StreamLog
from supervisor.fleet.port import WorkerHandle


class Stage(StrEnum):
    """Where a sequence is."""

    PREPARING = "preparing"
    READY = "ready"
    RUNNING = "running"
    PAUSING = "pausing"
    """It is being taken off its worker, to be put back: another one is to be tried alone."""
    CANCELLING = "cancelling"
    ENDED = "ended"


LISTENED_TO = frozenset({Stage.RUNNING, Stage.PAUSING})
"""What a worker says of these counts; of one that is cancelled nobody wants to know."""


class Job:
    """A log with its place in the group, which alone changes it.

    `worker` is set exactly while RUNNING, PAUSING or CANCELLING. `question` is the number under
    which the prompt is prepared, for all its choices at once.
    """

    __slots__ = (
        "last_token_at",
        "line",
        "log",
        "question",
        "sent_at",
        "stage",
        "stream",
        "waits_since",
        "worker",
    )

    def __init__(
        self, log: StreamLog, stream: ResponseStream, question: RequestNo, now: float
    ) -> None:
        self.log = log
        self.stream = stream
        self.question = question
        self.stage = Stage.PREPARING
        self.worker: WorkerHandle | None = None
        self.line: int | None = None
        """On which line of workers it ran last (`WorkerHandle.line`)."""
        self.sent_at = 0.0
        self.last_token_at: float | None = None
        self.waits_since = now
        """When it was accepted, or last lost its worker (monotonic seconds)."""

    @property
    def has_begun(self) -> bool:
        """Whether any part of the answer to its request exists: then the rest has to come from
        the same model."""
        return any(log.tokens for log in self.stream.logs)

    @property
    def bound_to(self) -> str | None:
        """The fingerprint on which alone it can go on; None if any will do."""
        return self.log.fingerprint if self.has_begun else None
