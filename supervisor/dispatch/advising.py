"""A policy's wishes for a sequence, asked for once its prompt is tokenized and before it waits.

Dispatch knows no policy's code: `Adviser` is the port (`supervisor/plugins`). A wish changes which
worker with room a sequence gets, and when it is computed; never whether it runs, nor its tokens.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from gpufc.ids import WorkerName
from gpufc.protocol import AS_IT_CAME, Batching
from supervisor.dispatch.admission import Admission
from supervisor.dispatch.conversion import to_arrival
from supervisor.dispatch.job import Stage
from supervisor.dispatch.job_table import JobTable
from supervisor.dispatch.pool import WorkerPool
from supervisor.dispatch.request import GenerationRequest
from supervisor.dispatch.stream_log import StreamLog
from supervisor.routing.loads import Load
from supervisor.routing.port import Arrival


class Case(Struct, frozen=True):
    """A prompt that is about to wait, and the model's sequences and open workers now.

    To be read at once: `loads` changes.
    """

    request: GenerationRequest
    principal: str
    arrival: Arrival
    loads: dict[WorkerName, Load]
    n_running: int
    n_waiting: int
    n_slots: int


class Advice(Struct, frozen=True):
    """The workers to try first, in this order, and how to batch the prompt's sequences."""

    workers: tuple[WorkerName, ...] = ()
    batching: Batching = AS_IT_CAME


class Adviser(Protocol):
    """The policies of a front."""

    def ask(self, case: Case, done: Callable[[Advice], None]) -> None:
        """Call `done` once, later, in the event loop. A policy that fails gives no reason to wait:
        the caller holds no slot, but a client waits."""
        ...


class Advising:
    """Owned by one model's group."""

    def __init__(
        self,
        table: JobTable,
        pool: WorkerPool,
        admission: Admission,
        adviser: Callable[[], Adviser | None],
        pump: Callable[[], None],
    ) -> None:
        """`pump` starts sequences that have become ready."""
        self._table = table
        self._pool = pool
        self._admission = admission
        self._adviser = adviser
        self._pump = pump

    def prepared(self, logs: Sequence[StreamLog]) -> None:
        """Let all choices of a prepared prompt wait for their turn."""
        adviser = self._adviser()
        if adviser is None:
            for log in logs:
                self._table.prepared(log.no)
            return
        adviser.ask(self._case(logs[0]), lambda advice: self._advised(logs, advice))

    def _case(self, log: StreamLog) -> Case:
        return Case(
            log.request,
            self._table.jobs[log.no].principal,
            to_arrival(log),
            self._pool.loads(),
            self._admission.n_running,
            self._admission.n_waiting,
            self._admission.slots,
        )

    def _advised(self, logs: Sequence[StreamLog], advice: Advice) -> None:
        for log in logs:
            job = self._table.jobs.get(log.no)
            if job is not None and job.stage is Stage.PREPARING:  # else it has ended meanwhile
                job.preferred, log.batching = advice.workers, advice.batching
                self._table.prepared(log.no)
        self._pump()
