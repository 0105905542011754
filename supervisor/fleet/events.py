"""The events that a lifecycle handles and the actions that it returns. Pure.

The events of a process carry its epoch: the lifecycle drops the events of an earlier process. An
operator's request carries none, and means the process that exists. The runner executes the actions
in order.
"""

import signal
from enum import StrEnum

from msgspec import Struct

from gpufc import protocol
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import FromWorker, Ready
from supervisor.fleet.exit_reason import ExitReason, Reason


class TimerKind(StrEnum):
    """The purpose of a timer. A new timer of a kind replaces the one before."""

    START = "start"
    LOAD = "load"
    TRIAL = "trial"
    LADDER = "ladder"
    BACKOFF = "backoff"


# requests


class StartRequested(Struct, frozen=True):
    """Start a process where there is none. `RestartRequested` replaces one. `is_awaited`: requests
    wait for the process."""

    is_awaited: bool = False


class DrainRequested(Struct, frozen=True):
    """Give the worker no new requests. Its running sequences go on."""


class StopRequested(Struct, frozen=True):
    """End the process for good. `now` skips asking it; `reason` is one of `ASKED`."""

    now: bool = False
    reason: Reason = Reason.STOPPED


class RestartRequested(Struct, frozen=True):
    """Replace the process by a new one, in any state; clears `FAILED`."""

    now: bool = False


class TookOver(Struct, frozen=True):
    """This line of processes takes over from another one and continues its counters."""

    restarts: int
    last_exit: ExitReason


class Adopted(Struct, frozen=True):
    """The first process has served another front: it needs no trial."""


class ModelFileChanged(Struct, frozen=True):
    """The model's file is another one than at the last start; clears `FAILED`."""


class DeathsExplained(Struct, frozen=True):
    """A convicted request caused the last `count` deaths: they count for no limit."""

    count: int


# events of a process


class Placed(Struct, frozen=True):
    """There is a machine for the process."""

    epoch: Epoch


class MachineAwaited(Struct, frozen=True):
    """No machine has room for the process now. `detail` says for what it waits."""

    epoch: Epoch
    detail: str


class MachinePrepares(Struct, frozen=True):
    """A machine with room gets the model's files. `detail` has the progress."""

    epoch: Epoch
    detail: str


class Spawned(Struct, frozen=True):
    epoch: Epoch
    pid: int


class SpawnFailed(Struct, frozen=True):
    """No process was started. With `is_refusal` the system is the cause, and not the worker; with
    `is_misplaced` the machine, and another one may do."""

    epoch: Epoch
    detail: str
    is_refusal: bool = False
    is_misplaced: bool = False


class HelloReceived(Struct, frozen=True):
    """The process has proven itself on the link."""

    epoch: Epoch


class LoadProgress(Struct, frozen=True):
    epoch: Epoch
    fraction: float


class BecameReady(Struct, frozen=True):
    epoch: Epoch
    ready: Ready


class LoadFailed(Struct, frozen=True):
    epoch: Epoch
    detail: str
    retryable: bool
    needed_bytes: int = 0
    available_bytes: int = 0


class TrialPassed(Struct, frozen=True):
    """The loaded model has computed the trial's tokens."""

    epoch: Epoch


class TrialFailed(Struct, frozen=True):
    """The loaded model refuses the trial, or answers it with nonsense."""

    epoch: Epoch
    detail: str


class TokenProduced(Struct, frozen=True):
    """The first token since the process became ready. Sent once for each epoch, not per token."""

    epoch: Epoch


class LinkBroken(Struct, frozen=True):
    """The process broke the protocol. With `retryable` false a new process would do so too."""

    epoch: Epoch
    detail: str
    retryable: bool = True


class EngineBroke(Struct, frozen=True):
    """The engine's state is unknown, and the process waits for `Shutdown`. `requests` are the
    sequences of the fatal batch."""

    epoch: Epoch
    detail: str
    requests: tuple[RequestNo, ...]


class DeclaredHung(Struct, frozen=True):
    """The watchdog's verdict: the process exists but makes no progress. `questions` are those that
    it hangs at, if the engine does not hang."""

    epoch: Epoch
    detail: str
    questions: tuple[RequestNo, ...] = ()


class Ending(Struct, frozen=True):
    """The process runs no more, and its memory is being given back. `Exited` follows."""

    epoch: Epoch
    reason: ExitReason


class Exited(Struct, frozen=True):
    """The process is gone and reaped. The last event of its epoch."""

    epoch: Epoch
    reason: ExitReason


class TimerFired(Struct, frozen=True):
    kind: TimerKind
    generation: int


ProcessEvent = (
    Placed
    | MachineAwaited
    | MachinePrepares
    | Spawned
    | SpawnFailed
    | HelloReceived
    | LoadProgress
    | BecameReady
    | LoadFailed
    | TrialPassed
    | TrialFailed
    | TokenProduced
    | LinkBroken
    | EngineBroke
    | DeclaredHung
    | Ending
    | Exited
)

Event = (
    ProcessEvent
    | StartRequested
    | DrainRequested
    | StopRequested
    | TookOver
    | Adopted
    | ModelFileChanged
    | DeathsExplained
    | RestartRequested
    | TimerFired
)


def of_message(message: FromWorker) -> Event | None:
    """The event that a worker's message is to its lifecycle; None if it is none."""
    match message:
        case protocol.Hello(epoch):
            return HelloReceived(epoch)
        case protocol.Loading(epoch, fraction):
            return LoadProgress(epoch, fraction)
        case protocol.Ready(epoch):
            return BecameReady(epoch, message)
        case protocol.LoadFailed(epoch, reason, retryable, needed_bytes, available_bytes):
            return LoadFailed(epoch, reason, retryable, needed_bytes, available_bytes)
        case protocol.EngineFailed(epoch, reason, requests):
            return EngineBroke(epoch, reason, requests)
        case _:
            return None


# actions


class Place(Struct, frozen=True):
    """Find a machine for the next process. Answered by `Placed`, or by `MachineAwaited` first.
    `avoid` says why the machine of the process before does not do."""

    epoch: Epoch
    avoid: str = ""


class Unplace(Struct, frozen=True):
    """Give up the search for a machine."""


class Spawn(Struct, frozen=True):
    """Start a process. Answered by `Spawned` or `SpawnFailed`. `replaces` is how the process
    before ended; None for the first, and for another attempt after a refusal. `is_awaited`:
    requests wait for the process, as for each that follows one that has ended."""

    epoch: Epoch
    replaces: Reason | None
    is_awaited: bool = False


class SendShutdown(Struct, frozen=True):
    """Ask the process to end by itself."""


class Signal(Struct, frozen=True):
    """Send a signal to the process, or with `group` also to its children."""

    signal: signal.Signals
    group: bool = False


class SetTimer(Struct, frozen=True):
    kind: TimerKind
    delay_s: float
    generation: int


class BeginTrial(Struct, frozen=True):
    """Let the loaded model compute the trial. Answered by `TrialPassed` or `TrialFailed`, unless
    the process ends before."""

    ready: Ready


class ReportProven(Struct, frozen=True):
    """Tell the listener that the engine has just passed its trial."""


class ReportReady(Struct, frozen=True):
    """Tell the listener of the worker. Messages are forwarded from now on."""

    ready: Ready


class ReportLost(Struct, frozen=True):
    """Tell the listener that the worker is lost. No message is forwarded from now on."""

    reason: ExitReason


class Release(Struct, frozen=True):
    """The process has ended: close its link and its descriptors."""

    epoch: Epoch


class Publish(Struct, frozen=True):
    """State, detail or progress changed: displays should be refreshed."""


Action = (
    Place
    | Unplace
    | Spawn
    | SendShutdown
    | Signal
    | SetTimer
    | BeginTrial
    | ReportProven
    | ReportReady
    | ReportLost
    | Release
    | Publish
)
