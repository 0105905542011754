"""The flight recorder's record of a worker that ended unasked. Pure.

A record never holds a prompt, generated text or a secret, because it gets attached to bug reports.
The worker's own output is kept as it is; workers log prompts at DEBUG only.
"""

import re
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from gpufc.config import ModelConfig
from gpufc.ids import Epoch, RequestNo, WorkerName
from gpufc.protocol import EngineStatus, Heartbeat, Ready
from supervisor.fleet.batch_record import Batch, SequenceRecord
from supervisor.fleet.exit_reason import ExitReason, Reason

MAX_LOG_LINES = 200
MAX_LOG_BYTES = 64 * 1024
MEMORY_SAMPLE_S = 1.0
MEMORY_SAMPLES = 300
"""Samples kept: five minutes."""

_SECRET = frozenset({"token", "secret", "password", "key", "keys"})
_FATAL = re.compile(r"^(Fatal Python error: .*|Current thread .*\(most recent call first\):)$")
_THREAD = re.compile(r"^(Current thread|Thread) 0x|^  (File |Garbage-collecting|\.\.\.|<)|^$")
_C_STACK = re.compile(r"^Current thread's C stack trace|^  (Binary file|<truncated)")
_EXTENSIONS = "Extension modules:"


class MemorySample(Struct, frozen=True, array_like=True):
    """Resident bytes, `uptime_s` after the process was started."""

    uptime_s: float
    rss_bytes: int


class EngineRecord(Struct, frozen=True, kw_only=True):
    """The engine thread's last own record. `age_s` counts from the step's start to the end."""

    phase: str
    step: int
    step_tokens: int
    age_s: float
    n_running: int
    n_waiting: int
    kv_cells_used: int
    last_step_sent: int | None


class CrashRecord(Struct, frozen=True, kw_only=True):
    """One unwanted end. Times `_at` are unix seconds. `sequences` are the worker's. `requests` are
    the numbers of the fatal batch's sequences, if the worker could still send them."""

    worker: WorkerName
    epoch: Epoch
    model: str
    pid: int | None
    reason: Reason
    signal: int | None
    code: int | None
    detail: str
    at: float
    started_at: float
    uptime_s: float
    was_ready: bool
    fingerprint: str | None
    loaded_in_s: float | None
    engine: EngineRecord | None
    requests: tuple[RequestNo, ...]
    sequences: tuple[SequenceRecord, ...] = ()
    memory: tuple[MemorySample, ...]
    log: tuple[str, ...]
    python_stack: tuple[str, ...]
    c_stack: tuple[str, ...]
    config: dict[str, Any]
    system_info: str
    versions: dict[str, str] = {}

    @property
    def id(self) -> str:
        """The name of the record's file, and of the record in commands."""
        worker = re.sub(r"[^\w.-]", "_", self.worker)
        return f"{int(self.at * 1000)}-{worker}-{self.epoch}"


class BlackBox:
    """The memory of one running process, in bounded space. Owned by one observation."""

    def __init__(self, started: float, started_at: float, config: ModelConfig) -> None:
        """`started` is monotonic, `started_at` the same moment in unix time."""
        self.pid: int | None = None
        self.ready: Ready | None = None
        self.last_step: int | None = None
        self.batch = Batch()
        self._started = started
        self._started_at = started_at
        self._config = config
        self._engine_status: EngineStatus | None = None
        self._step_began = started
        self._memory: deque[MemorySample] = deque(maxlen=MEMORY_SAMPLES)

    def beat(self, heartbeat: Heartbeat, now: float) -> None:
        """Keep the engine thread's record."""
        self._engine_status = heartbeat.engine
        self._step_began = now - heartbeat.age_s(heartbeat.engine.step_started)

    def sample_memory(self, now: float, rss_bytes: int) -> None:
        """Keep one sample in `MEMORY_SAMPLE_S`, however often this is called."""
        uptime_s = now - self._started
        if not self._memory or uptime_s >= self._memory[-1].uptime_s + 0.9 * MEMORY_SAMPLE_S:
            self._memory.append(MemorySample(round(uptime_s, 1), rss_bytes))

    def record(
        self,
        end: ExitReason,
        now: float,
        log: bytes,
        *,
        worker: WorkerName,
        epoch: Epoch,
        model: str,
    ) -> CrashRecord:
        """The record of this process, which has ended. `log` is the end of its output."""
        ready = self.ready
        lines = log_lines(log)
        python_stack, c_stack = stacks(lines)
        return CrashRecord(
            worker=worker,
            epoch=epoch,
            model=model,
            pid=self.pid,
            reason=end.reason,
            signal=end.signal,
            code=end.code,
            detail=end.detail,
            at=end.at,
            started_at=self._started_at,
            uptime_s=round(now - self._started, 3),
            was_ready=ready is not None,
            fingerprint=ready.facts.fingerprint if ready else None,
            loaded_in_s=ready.loaded_in_s if ready else None,
            engine=self._engine(now),
            requests=end.requests,
            sequences=self.batch.records(end.requests),
            memory=tuple(self._memory),
            log=lines,
            python_stack=python_stack,
            c_stack=c_stack,
            config=without_secrets(msgspec.json.decode(msgspec.json.encode(self._config))),
            system_info=ready.facts.system_info if ready else "",
        )

    def _engine(self, now: float) -> EngineRecord | None:
        engine = self._engine_status
        if engine is None:
            return None
        return EngineRecord(
            phase=engine.phase,
            step=engine.step,
            step_tokens=engine.step_tokens,
            age_s=round(now - self._step_began, 3),
            n_running=engine.n_running,
            n_waiting=engine.n_waiting,
            kv_cells_used=engine.kv_cells_used,
            last_step_sent=self.last_step,
        )


def log_lines(log: bytes) -> tuple[str, ...]:
    """The last lines of a log, within the limits. Undecodable bytes are replaced."""
    text = log[-MAX_LOG_BYTES:].decode("utf-8", "replace")
    return tuple(text.splitlines()[-MAX_LOG_LINES:])


def stacks(lines: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The last dump of `faulthandler` among the lines: Python's stacks, and C's (Python ≥ 3.14).

    https://docs.python.org/3/library/faulthandler.html
    """
    python: list[str] = []
    c_stack: list[str] = []
    inside = False
    for line in lines:
        if _FATAL.match(line):
            if line.startswith("Fatal"):
                python, c_stack = [], []
            inside = True
        if not inside:
            continue
        if _C_STACK.match(line):
            c_stack.append(line)
        elif _FATAL.match(line) or _THREAD.match(line):
            python.append(line)
        elif not line.startswith(_EXTENSIONS):
            inside = False
    return _trimmed(python), _trimmed(c_stack)


def _trimmed(lines: list[str]) -> tuple[str, ...]:
    while lines and not lines[-1]:
        lines = lines[:-1]
    return tuple(lines)


def without_secrets(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without keys that are named like secrets."""
    return {key: value for key, value in config.items() if not _SECRET & set(key.split("_"))}
