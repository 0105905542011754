"""The open requests, as a display reads them. Pure; nothing here is kept or changed."""

from collections.abc import Sequence

from gpufc.ids import WorkerName
from supervisor.dispatch.job import Job, Stage
from supervisor.dispatch.ledger import Outcome
from supervisor.dispatch.stream import ResponseStream
from supervisor.dispatch.timings import Timings


class OpenRequest:
    """One request and its sequences that have not ended. Its stream tells how it ended later."""

    __slots__ = ("_jobs", "stream")

    def __init__(self, stream: ResponseStream, jobs: Sequence[Job]) -> None:
        self.stream = stream
        self._jobs = jobs

    @property
    def timings(self) -> Timings:
        return self.stream.timings

    @property
    def stage(self) -> Stage:
        """That of the sequence which is furthest."""
        stages = {job.stage for job in self._jobs}
        order = (Stage.RUNNING, Stage.PAUSING, Stage.CANCELLING, Stage.READY, Stage.PREPARING)
        return next((stage for stage in order if stage in stages), Stage.ENDED)

    @property
    def worker(self) -> WorkerName | None:
        """A worker that computes it now."""
        return next((job.worker.name for job in self._jobs if job.worker is not None), None)

    @property
    def is_paused(self) -> bool:
        """Whether a sequence has lost its worker and waits for its next token."""
        return any(job.loss is not None for job in self._jobs)

    @property
    def n_replays(self) -> int:
        """How often a sequence went to a further worker, at most."""
        return max(0, max(len(log.epochs) for log in self.stream.logs) - 1)

    @property
    def outcome(self) -> Outcome | None:
        """How it has ended; None while it is open."""
        return None if self.timings.ended_at is None else self.stream.outcome
