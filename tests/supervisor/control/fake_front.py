"""A front as the control socket sees it: scripted, without workers or HTTP."""

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import msgspec

from gpufc import settings
from gpufc.errors import NotFound, Overloaded, RequestError
from gpufc.ids import Epoch, WorkerName
from gpufc.settings import Value
from supervisor.fleet.model_state import ModelPhase, ModelState
from supervisor.fleet.operation import Operation
from supervisor.fleet.port import ModelChange, OnReplacement, Replacement, ReplacementStage

NAME = WorkerName("default-0")


def worker(**changes: Any) -> dict[str, Any]:
    row = {
        "name": "default-0", "pid": 11, "epoch": 1, "state": "ready", "detail": "",
        "model": "SmolLM2-135M-Instruct.Q4_1", "model_path": "/models/smol.gguf", "restarts": 0,
        "last_exit": None, "n_ctx": 4096, "kv_cells_total": 40960, "kv_cells_used": 12,
        "n_gpu_layers": 0, "sequences_running": 0, "rss_bytes": 300 << 20, "loaded_in_s": 0.4,
        "loading_fraction": 1.0, "tokens_per_second": 0.0,
        "devices": [["CPU", "A processor", "cpu", 1 << 30, 2 << 30]],
    }  # fmt: skip
    return row | changes


def model(**changes: Any) -> dict[str, Any]:
    name = worker()["model"]
    made = ModelState(name=name, state=ModelPhase.READY, size_bytes=1 << 30, host_bytes=2 << 30)
    return dict(msgspec.to_builtins(made)) | changes


def document(**changes: Any) -> dict[str, Any]:
    made = {
        "version": "0.1.0",
        "uptime_s": 61.0,
        "front": {
            "pid": os.getpid(),
            "addresses": ["http://127.0.0.1:8082"],
            "condition": {"status": "ok", "detail": "", "retry_after_s": 0.0},
        },
        "requests": {
            "running": 2, "waiting": 1, "succeeded_total": 10, "failed_total": 0,
            "cancelled_total": 0, "rejected_total": 0,
        },
        "tokens": {
            "prompt_total": 100, "prompt_cached_total": 0, "generated_total": 1234,
            "generated_per_second": 45.6,
        },
        "models": [model()],
        "workers": [worker()],
        "host": {
            "cpu_percent": 12.0, "memory_total_bytes": 8 << 30,
            "memory_available_bytes": 6 << 30, "disk_free_bytes": 1 << 30,
        },
        "devices": [],
        "sources": [
            {"name": "host", "state": "ok", "detail": "", "age_s": 0.1},
            {"name": "nvml", "state": "absent", "detail": "no NVIDIA driver", "age_s": None},
        ],
        "latency": {"time_to_first_token_seconds": {"p50": 0.1, "p99": 0.5}},
    }  # fmt: skip
    return made | changes


def network(**changes: Any) -> dict[str, Any]:
    made = {
        "server": "control.example:17000", "client_id": "0011…eeff", "phase": "online",
        "detail": "", "models": ["m"], "logged_in_at": 1.0, "last_heartbeat_at": None,
        "tasks_running": 2, "tasks_waiting": 1,
        "tasks": {"succeeded": 1234, "failed": 0, "cancelled": 5, "refused": 0, "lost": 0},
        "connections": 3,
    }  # fmt: skip
    return made | changes


class FakeFront:
    """Implements `ControlledFront`."""

    def __init__(self) -> None:
        self.row = worker()
        self.stops: list[bool] = []
        self.drains: list[float] = []
        self.restarts: list[tuple[str | None, bool]] = []
        self.swaps: list[tuple[str | None, ModelChange]] = []
        self.running = 2
        self.end_unseen = False
        """All requests end between a look at their number and the question whether any is left."""
        self.network: dict[str, Any] | None = None
        self.fails: RequestError | None = None
        """What replacements come to."""
        self.goes_on: asyncio.Event | None = None
        """What they wait for in the middle; they hold it up for as long as it is not set."""
        self.replacing: Operation | None = None

    def status(self) -> dict[str, Any]:
        made = document(workers=[dict(self.row)])
        made["requests"]["running"] = self.running
        return made | {"network": self.network}

    def connect_network(self) -> None:
        self.network = network(phase="connecting")

    async def disconnect_network(self) -> None:
        self.network = network(phase="off", detail="leaving the network")

    def effective_values(self) -> Sequence[Value]:
        return settings.resolve(flags={"port": "9000"}, environ={}, file=None).values

    def request_stop(self, now: bool = False) -> None:
        self.stops.append(now)

    def drain(self, lead_s: float = 0.0) -> None:
        self.drains.append(lead_s)

    def undrain(self) -> None:
        if self.stops:
            raise Overloaded("the front is stopping", retry_after_s=1.0)
        self.drains.clear()

    @property
    def is_drained(self) -> bool:
        if self.end_unseen:
            self.running = 0
        return not self.running

    def restart(self, worker: str | None, now: bool = False) -> Operation:
        if worker not in (None, "default-0"):
            raise NotFound(f"there is no worker {worker!r}", param="worker")
        self.restarts.append((worker, now))
        self.replacing = Operation("restart", self._replace)
        return self.replacing

    def swap(self, name: str | None, change: ModelChange) -> Operation:
        self.swaps.append((name, change))
        self.replacing = Operation("swap", self._replace)
        return self.replacing

    async def _replace(self, tell: OnReplacement) -> None:
        for stage in (ReplacementStage.LOADING, ReplacementStage.TRYING):
            tell(Replacement(worker=NAME, stage=stage, fraction=0.5))
            await asyncio.sleep(0)
        if self.goes_on is not None:
            await self.goes_on.wait()
        if self.fails is not None:
            raise self.fails
        tell(Replacement(worker=NAME, stage=ReplacementStage.READY, pid=12, epoch=Epoch(2)))
