"""The observation of one running process: its heartbeats, its vitals, its memory.

Feeds the watchdog, which decides, and the black box, which remembers. Owns the periodic look. A
runner has one for each process.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from gpufc.config import ModelConfig
from gpufc.ids import Epoch, WorkerName
from gpufc.protocol import EngineStatus, FromWorker, Generate, Heartbeat, Ready, Step
from supervisor.fleet.crash_record import BlackBox, CrashRecord
from supervisor.fleet.exit_reason import ExitReason
from supervisor.fleet.step_rate import StepRate
from supervisor.fleet.watchdog import LIMITS, TICK_S, Verdict, Vitals, Watchdog, WatchLimits


class Observed(Protocol):
    """A process, as far as it is observed."""

    @property
    def pid(self) -> int | None: ...

    def vitals(self) -> Vitals | None: ...
    def rss_bytes(self) -> int: ...


class Observation:
    """From spawn until `close`. `on_hung` is called once at most, with the watchdog's verdict."""

    def __init__(
        self,
        process: Observed,
        epoch: Epoch,
        config: ModelConfig,
        rate: StepRate,
        on_hung: Callable[[Verdict], None],
        limits: WatchLimits = LIMITS,
    ) -> None:
        now = time.monotonic()
        self.engine: EngineStatus | None = None
        self.heartbeat_at: float | None = None
        """Unix time, for people."""
        self._process = process
        self._epoch = epoch
        self._on_hung = on_hung
        self._is_hung = False
        self._watchdog = Watchdog(now, rate, limits)
        self._box = BlackBox(now, time.time(), config)
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def close(self) -> None:
        """Stop looking. May be called again."""
        self._timer.cancel()

    def heard(self, message: FromWorker) -> None:
        """A message came that is neither a heartbeat nor a step."""
        self._box.batch.told(message)
        self._watchdog.heard(time.monotonic())

    def beat(self, heartbeat: Heartbeat) -> None:
        now = time.monotonic()
        self.engine, self.heartbeat_at = heartbeat.engine, time.time()
        self._box.beat(heartbeat, now)
        self._watchdog.beat(heartbeat, now)

    def stepped(self, step: Step) -> None:
        self._box.last_step = step.step
        self._box.batch.told(step)
        self._watchdog.stepped(step.step)

    def handed_work(self, sequence: Generate) -> None:
        """A sequence was sent to the process."""
        self._box.batch.given(sequence)
        self._watchdog.handed_work(time.monotonic())

    def serves(self, ready: Ready) -> None:
        """The process has loaded its model."""
        self._box.ready = ready
        self._watchdog.serves(time.monotonic())

    def record(self, end: ExitReason, log: bytes, *, worker: WorkerName, model: str) -> CrashRecord:
        """The flight recorder's record of the process, which has ended."""
        now = time.monotonic()
        self._box.pid = self._process.pid
        return self._box.record(end, now, log, worker=worker, epoch=self._epoch, model=model)

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        now = time.monotonic()
        self._box.sample_memory(now, self._process.rss_bytes())
        verdict = self._watchdog.look(now, self._process.vitals())
        if verdict is not None and not self._is_hung:
            self._is_hung = True
            self._on_hung(verdict)
