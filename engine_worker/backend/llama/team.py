"""The threads that compute the passes of a context.

A `Team` calls `llama_decode`. `team_for` chooses one when the context is made.
"""

import logging
import time
from typing import Any, Protocol

from engine_worker import host
from engine_worker.backend.llama.bindings import Bindings, ContextPointer
from engine_worker.backend.llama.openmp import AsItIs, GnuWaiting, Waiting
from engine_worker.backend.llama.sharing import SharedCores
from gpufc.config import ModelConfig, Replay

logger = logging.getLogger(__name__)

IDLE_SHARE = 0.5
"""Of a window without a pass in so much of it, others may have worked and ended."""


class Team(Protocol):
    """Computes passes of one context. `n_threads` computed the last one."""

    @property
    def n_threads(self) -> int: ...

    def decode(self, context: ContextPointer | None, batch: Any, n_tokens: int) -> int:
        """`llama_decode` of a `llama_batch` of so many tokens; returns its code."""
        ...


class AllThreads:
    """All threads of the context, for each pass."""

    def __init__(self, bindings: Bindings, n_threads: int) -> None:
        self.n_threads = n_threads
        self._decode = bindings.llama_decode

    def decode(self, context: ContextPointer | None, batch: Any, n_tokens: int) -> int:
        return int(self._decode(context, batch))


class SharingTeam:
    """Fewer threads that wait less long while other processes use the cores."""

    def __init__(self, bindings: Bindings, n_threads: int, n_threads_batch: int) -> None:
        """With these numbers the context was made."""
        n_cores = host.logical_cores()
        self._bindings = bindings
        self._most = n_threads
        self.n_threads = n_threads
        self._is_set = n_threads == n_threads_batch  # else llama.cpp's rule differs from this one
        self._use = host.CoreUse()
        self._cores = SharedCores(n_threads, n_threads_batch, n_cores)
        self._ended, self._idle_s = time.monotonic(), 0.0  # of the last pass, and of the window
        self._waiting: Waiting = GnuWaiting.of(n_threads, n_cores) or AsItIs()

    def decode(self, context: ContextPointer | None, batch: Any, n_tokens: int) -> int:
        began = time.monotonic()
        self._idle_s += began - self._ended
        window = self._use.by_others(began)
        if window is not None:
            self._look(*window)
        n_threads = self._cores.threads(n_tokens)
        if n_threads != self.n_threads or not self._is_set:
            self.n_threads, self._is_set = n_threads, True
            self._bindings.llama_set_n_threads(context, n_threads, n_threads)
        code = int(self._bindings.llama_decode(context, batch))
        self._ended = time.monotonic()
        self._cores.computed(n_tokens, n_threads, self._ended - began)
        return code

    def _look(self, others: float, window_s: float) -> None:
        was_crowded = self._cores.is_crowded
        if self._idle_s > IDLE_SHARE * window_s and others and not self._use.others_run():
            others = 0.0  # they worked while this process waited, and have ended
        self._idle_s = 0.0
        self._cores.used(others, window_s)
        if self._cores.is_crowded and not was_crowded:
            logger.info("cores_shared used_by_others=%.1f threads_at_most=%d", others, self._most)
            self._waiting.be_short()
        elif was_crowded and not self._cores.is_crowded:
            logger.info("cores_free used_by_others=%.1f threads=%d", others, self._most)
            self._waiting.be_long()


def team_for(
    bindings: Bindings, config: ModelConfig, context: ContextPointer, *, on_device: bool
) -> Team:
    """The team of a new context. `on_device`: devices compute all layers, and the CPU waits.

    An exact replay computes with what the first computation had, so its threads stay.
    """
    n_threads = int(bindings.llama_n_threads(context))
    is_fixed = config.replay is Replay.EXACT or not config.share_cores
    if on_device or n_threads == 1 or is_fixed:
        return AllThreads(bindings, n_threads)
    return SharingTeam(bindings, n_threads, int(bindings.llama_n_threads_batch(context)))
