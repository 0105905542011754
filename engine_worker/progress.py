"""The engine thread's own record of what it is doing, for whoever watches it."""

import time
from dataclasses import dataclass

from gpufc.protocol import EnginePhase


@dataclass(frozen=True, slots=True)
class Progress:
    """Written whole before each step by the engine thread, read by the IO thread.

    One assignment of one frozen object, so a reader never sees half of it. `step_started` is
    `time.monotonic()`, which all processes of a machine share.
    """

    phase: EnginePhase = EnginePhase.LOADING
    step: int = 0
    step_started: float = 0.0
    step_tokens: int = 0
    n_running: int = 0
    n_waiting: int = 0
    kv_cells_used: int = 0

    @staticmethod
    def at_start() -> "Progress":
        """The record of a worker that has begun to load its model."""
        return Progress(step_started=time.monotonic())
