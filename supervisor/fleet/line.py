"""What other modules may ask of one line of worker processes. `runner.py` changes it."""

import itertools
import time

from gpufc.facts import ModelFacts
from supervisor.fleet.condition import of_defect, of_lifecycle
from supervisor.fleet.edge import Process
from supervisor.fleet.exit_reason import ASKED
from supervisor.fleet.lifecycle import WorkerLifecycle
from supervisor.fleet.lifecycle_terms import Shortage
from supervisor.fleet.observation import Observation
from supervisor.fleet.port import Condition, WorkerStatus
from supervisor.fleet.states import AT_REST, COMING_UP, SERVING, WorkerState
from supervisor.fleet.worker import Worker, WorkerSpec

_lines = itertools.count(1)


class Line:
    """The state of one line of processes, to be read. Only its runner changes it.

    No other module reads the lifecycle. An answer is valid for this turn of the event loop: after
    an `await` the question has to be asked again.
    """

    def __init__(self, spec: WorkerSpec, lifecycle: WorkerLifecycle) -> None:
        self.spec = spec
        self.line = next(_lines)
        self.defect: str | None = None
        """Set when the runner itself has failed: it does nothing any more."""
        self.worker: Worker | None = None
        """The ready process, from `worker_ready` to `worker_lost`."""
        self._lifecycle = lifecycle
        self._process: Process | None = None
        self._seen: Observation | None = None
        self._last_step_at: float | None = None
        self._last_facts: ModelFacts | None = None
        """Of the last process that loaded."""

    @property
    def is_stopped(self) -> bool:
        """Whether there is no process, and none will be started unasked."""
        return self._lifecycle.state is WorkerState.STOPPED

    @property
    def is_coming_up(self) -> bool:
        """Whether a process exists that has not loaded its model yet."""
        return self._lifecycle.state in COMING_UP

    @property
    def is_trying(self) -> bool:
        """Whether a process computes its trial."""
        return self._lifecycle.state is WorkerState.TRYING

    @property
    def has_failed(self) -> bool:
        """Whether no process will be started without an operator or another model file."""
        return self._lifecycle.state is WorkerState.FAILED

    @property
    def is_on_its_way(self) -> bool:
        """Whether a process is coming up, or waits for its restart or for a machine."""
        waits = {WorkerState.PLACING, WorkerState.BACKOFF}
        return self._lifecycle.state in COMING_UP | waits

    @property
    def is_settled(self) -> bool:
        """Whether it takes requests, or has no process."""
        return self._lifecycle.state in {WorkerState.READY} | AT_REST

    @property
    def is_up_or_failed(self) -> bool:
        """Whether it serves, or will not without an operator."""
        return self._is_up_or(self._lifecycle.state is WorkerState.FAILED)

    @property
    def is_up_or_has_died(self) -> bool:
        """Whether it serves, a process of it has ended, or no machine has room for one."""
        life = self._lifecycle
        return self._is_up_or(life.last_exit is not None or life.awaits_machine)

    @property
    def comes_back(self) -> bool:
        """Whether it has no worker because that one died, and another one follows."""
        cause = self._lifecycle.giving_up
        was_given_up = cause is not None and cause not in ASKED
        return self.worker is None and (self.is_on_its_way or was_given_up)

    def has_settled_since(self, epoch: int) -> bool:
        """Whether a process after that epoch is ready, has failed or awaits a machine, or none will
        be started."""
        life = self._lifecycle
        if self.defect is not None or self.is_stopped:
            return True
        is_over = life.state in {WorkerState.READY, WorkerState.FAILED} or life.awaits_machine
        return life.epoch > epoch and is_over

    @property
    def awaited(self) -> str | None:
        """What it needs from a machine while none has room for its process."""
        return self._lifecycle.detail if self._lifecycle.awaits_machine else None

    @property
    def machine(self) -> str | None:
        """The machine of its process; None for the front's own, and without a process."""
        return self._process.machine if self._process else None

    @property
    def held(self) -> ModelFacts | None:
        """What its process holds, by what it has obtained, or the process before it while it loads.
        None without a process, and before the first load."""
        return self._last_facts if self._process is not None else None

    def anonymous_bytes(self) -> int | None:
        """The memory of its process that no file backs; None if it is unknown."""
        return self._process.anonymous_bytes() if self._process else None

    @property
    def shortage(self) -> Shortage:
        """Memory that the last failed load lacked."""
        return self._lifecycle.shortage

    def condition(self) -> Condition:
        """Whether a token could be produced now."""
        if self.defect is not None:
            return of_defect(self.defect)
        return of_lifecycle(self._lifecycle, time.monotonic())

    def status(self) -> WorkerStatus:
        """The row of this line of processes, to be shown and not to be acted upon."""
        life, seen = self._lifecycle, self._seen
        ready = life.ready
        return WorkerStatus(
            name=self.spec.name,
            machine=self.machine,
            pid=life.pid,
            epoch=life.epoch,
            state=life.state,
            detail=self.defect or life.detail,
            model=self.spec.model,
            model_path=self.spec.config.model_path,
            restarts=life.restarts,
            last_exit=life.last_exit,
            rss_bytes=self._process.rss_bytes() if self._process else 0,
            loading_fraction=life.loading_fraction,
            loaded_in_s=ready.loaded_in_s if ready else None,
            last_step_at=self._last_step_at,
            last_heartbeat_at=seen.heartbeat_at if seen else None,
            facts=ready.facts if ready else None,
            engine=seen.engine if seen else None,
            within=self.spec.within,
        )

    def _is_up_or(self, has_ended: bool) -> bool:
        return has_ended or self.defect is not None or self._lifecycle.state in SERVING
