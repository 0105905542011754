"""The terms of `lifecycle.py`: what others read of it, its timers, and ends of processes. Pure."""

from enum import StrEnum

from msgspec import Struct

from gpufc.errors import GpufcError
from gpufc.ids import Epoch
from gpufc.protocol import Ready
from supervisor.fleet import events as ev
from supervisor.fleet.exit_reason import ExitReason
from supervisor.fleet.states import WorkerState


class Shortage(Struct, frozen=True):
    """Bytes that a load needed and bytes that were free; 0 if memory was not the cause."""

    needed_bytes: int
    available_bytes: int


class After(StrEnum):
    """The continuation after a process that is being stopped has ended."""

    STAY_STOPPED = "stay_stopped"
    START = "start"
    ASK_POLICY = "ask_policy"
    FAIL = "fail"
    ELSEWHERE = "elsewhere"
    """Start on another machine: this one cannot load the model."""


class IllegalMove(GpufcError):
    """A defect of the fleet itself. The text holds the events before it."""


class LineState:
    """What others may read of a line of processes. Only its lifecycle changes it."""

    def __init__(self) -> None:
        self.state = WorkerState.STOPPED
        self.epoch = Epoch(0)
        self.pid: int | None = None
        self.ready: Ready | None = None
        self.loading_fraction = 0.0
        self.last_exit: ExitReason | None = None
        self.restarts = 0
        self.retry_at: float | None = None
        self.detail = ""
        self.since = 0.0
        self.shortage = Shortage(0, 0)
        """The memory that the last failed load lacked."""
        self.awaits_machine = False
        """PLACING, and no machine has room."""


class Timers:
    """The timers of one state, by kind."""

    def __init__(self) -> None:
        self._generation = 0
        self._running: dict[ev.TimerKind, int] = {}

    def begin(self, kind: ev.TimerKind, delay_s: float) -> ev.SetTimer:
        """The action that starts a timer, instead of an earlier one of its kind."""
        self._generation += 1
        self._running[kind] = self._generation
        return ev.SetTimer(kind, delay_s, self._generation)

    def counts(self, event: ev.TimerFired) -> bool:
        """False if the timer was replaced, or its state was left."""
        return self._running.get(event.kind) == event.generation

    def clear(self) -> None:
        """A state is left."""
        self._running.clear()
