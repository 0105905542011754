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
    CANCELLING = "cancelling"
    ENDED = "ended"


class Job:
    """A log with its place in the group, which alone changes it.

    `worker` is set exactly while RUNNING or CANCELLING. `question` is the number under which the
    prompt is prepared, for all its choices at once.
    """

    __slots__ = (
        "last_token_at",
        "log",
        "lost_at",
        "question",
        "sent_at",
        "stage",
        "stream",
        "worker",
    )

    def __init__(self, log: StreamLog, stream: ResponseStream, question: RequestNo) -> None:
        self.log = log
        self.stream = stream
        self.question = question
        self.stage = Stage.PREPARING
        self.worker: WorkerHandle | None = None
        self.sent_at = 0.0
        self.last_token_at: float | None = None
        self.lost_at: float | None = None
        """When its worker was lost; None once a later one has brought it a token."""
