"""What a fleet hands over to that of another front, and begins with when it takes over. Pure.

How it gets from the one to the other is `supervisor/handover`'s.
"""

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from gpufc.ids import Epoch, WorkerName
from gpufc.protocol import Ready
from supervisor.fleet.edge import Process
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.process import ExitListener
from supervisor.fleet.runner import WorkerSpec

TakeOver = Callable[[Path, ExitListener], Process]
"""Makes a running process ours, of its log and of whom to tell of its end."""


class HeldWorker(Struct, frozen=True, kw_only=True):
    """A running worker, in all that its place in the next fleet begins with."""

    spec: WorkerSpec
    pid: int
    ready: Ready
    restarts: int
    last_exit: ExitReason | None


class Holdings(Struct, frozen=True, kw_only=True):
    """A whole fleet. `models` are the served names with their aliases; `next_epoch` is one that
    no process had."""

    workers: tuple[HeldWorker, ...]
    models: dict[str, tuple[str, ...]]
    next_epoch: Epoch
    restarts: dict[Reason, int]


class Heritage(Struct, frozen=True, kw_only=True):
    """What a fleet begins with that takes over."""

    holdings: Holdings
    processes: dict[WorkerName, TakeOver]
