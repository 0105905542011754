"""What happens to a worker, and what is to be done about it: the lifecycle's words.

Events of a process carry its epoch, so that those of an earlier process can be told apart and
dropped. Requests of operators carry none: they mean whatever process there is. Actions are
executed by the runner, in order.
"""

import signal
from enum import StrEnum

from msgspec import Struct

from gpufc import protocol
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import FromWorker, Ready
from supervisor.fleet.exit_reason import ExitReason, Reason


class TimerKind(StrEnum):
    """What is being waited for. A new timer of a kind replaces the one before."""

    START = "start"
    LOAD = "load"
    LADDER = "ladder"
    BACKOFF = "backoff"


# what was asked


class StartRequested(Struct, frozen=True):
    """Start the worker. Only once; afterwards `RestartRequested` does it."""


class DrainRequested(Struct, frozen=True):
    """Give the worker no new requests. What runs on it goes on."""


class StopRequested(Struct, frozen=True):
    """End the process for good. `now` skips asking it; `reason` is one of `ASKED`."""

    now: bool = False
    reason: Reason = Reason.STOPPED


class RestartRequested(Struct, frozen=True):
    """Replace the process by a new one, whatever state it is in; clears `FAILED`."""

    now: bool = False


class TookOver(Struct, frozen=True):
    """This worker serves from now on in the place of another one, whose record it continues."""

    restarts: int
    last_exit: ExitReason


class DeathsExplained(Struct, frozen=True):
    """The last `count` deaths were a convicted request's doing."""

    count: int


# what happened to a process


class Spawned(Struct, frozen=True):
    epoch: Epoch
    pid: int


class SpawnFailed(Struct, frozen=True):
    epoch: Epoch
    detail: str


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


class TokenProduced(Struct, frozen=True):
    """The first token since the process became ready. Sent once for each epoch, not per token."""

    epoch: Epoch


class LinkBroken(Struct, frozen=True):
    """The process broke the protocol. With `retryable` false its next start would do it again."""

    epoch: Epoch
    detail: str
    retryable: bool = True


class EngineBroke(Struct, frozen=True):
    """The engine's state is unknown and the process waits to be told to end. `requests` are those
    of the fatal batch."""

    epoch: Epoch
    detail: str
    requests: tuple[RequestNo, ...]


class DeclaredHung(Struct, frozen=True):
    """The watchdog's verdict: the process exists but makes no progress."""

    epoch: Epoch
    detail: str


class Exited(Struct, frozen=True):
    """The process is gone and reaped. The last event of its epoch."""

    epoch: Epoch
    reason: ExitReason


class TimerFired(Struct, frozen=True):
    kind: TimerKind
    generation: int


Event = (
    StartRequested
    | DrainRequested
    | StopRequested
    | TookOver
    | DeathsExplained
    | RestartRequested
    | Spawned
    | SpawnFailed
    | HelloReceived
    | LoadProgress
    | BecameReady
    | LoadFailed
    | TokenProduced
    | LinkBroken
    | EngineBroke
    | DeclaredHung
    | Exited
    | TimerFired
)


def of_message(message: FromWorker) -> Event | None:
    """What a worker's message means to its lifecycle; None for what is others' business."""
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


# what is to be done


class Spawn(Struct, frozen=True):
    """Start a process. Answered by `Spawned` or `SpawnFailed`. `replaces` says how the one
    before ended; None for the first."""

    epoch: Epoch
    replaces: Reason | None


class SendShutdown(Struct, frozen=True):
    """Ask the process to end by itself."""


class Signal(Struct, frozen=True):
    """Send a signal to the process, or with `group` to all that it has started too."""

    signal: signal.Signals
    group: bool = False


class SetTimer(Struct, frozen=True):
    kind: TimerKind
    delay_s: float
    generation: int


class ReportReady(Struct, frozen=True):
    """Tell the listener. From now on messages are handed to it."""

    ready: Ready


class ReportLost(Struct, frozen=True):
    """Tell the listener. From now on no message is handed to it."""

    reason: ExitReason


class Release(Struct, frozen=True):
    """The process has ended: close its link and its descriptors."""

    epoch: Epoch


class Publish(Struct, frozen=True):
    """State, detail or progress changed: whoever shows them should look again."""


Action = Spawn | SendShutdown | Signal | SetTimer | ReportReady | ReportLost | Release | Publish
