"""Computed KV of models that are not in memory, kept until their next load.

A worker that is unloaded writes its KV into a memory file, as for a hand-over, and the next worker
of the same fingerprint reads it before its first request. So a conversation goes on without a
prefill after its model was evicted.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack

from msgspec import Struct

from gpufc.lending import lent
from gpufc.protocol import ImportKv, KvMoved
from supervisor.fleet.kv_handover import MOVE_S, exported, free_bytes, limit
from supervisor.fleet.worker import Worker

logger = logging.getLogger(__name__)

DEFAULT_BYTES = 256 << 20
"""The most bytes of all models by default, unless GPUs compute all layers."""


class Kept(Struct, frozen=True):
    """One worker's KV in the sealed memory file `fd`."""

    model: str
    fingerprint: str
    fd: int
    n_bytes: int


class KeptKv:
    """Memory files of unloaded workers, the oldest first. In the event loop.

    All files together have at most `limit_bytes`, or the default with None; 0 keeps nothing. Only
    workers of the front's own machine are asked.
    """

    def __init__(self, limit_bytes: int | None, free_bytes: Callable[[], int] = free_bytes) -> None:
        self._wanted = limit_bytes
        self._free_bytes = free_bytes
        self._files: list[Kept] = []
        self._giving: set[asyncio.Task[None]] = set()

    @property
    def n_bytes(self) -> int:
        """The memory of all files."""
        return sum(one.n_bytes for one in self._files)

    async def keep(self, worker: Worker) -> None:
        """Let a worker that is about to end write its KV. Never raises; takes `MOVE_S` at most."""
        most = limit(self._wanted, worker.facts, worker.facts, DEFAULT_BYTES)
        if worker.machine is not None or most <= 0:
            return
        found = await exported(worker, most)
        if found is None:
            return
        fd, moved = found
        self._files.append(Kept(worker.model, worker.facts.fingerprint, fd, moved.n_bytes))
        logger.info("kv_kept model=%s bytes=%d", worker.model, moved.n_bytes)
        while self.n_bytes > most:
            self._drop(self._files[0])

    def give(self, worker: Worker) -> None:
        """Let a worker that has just become ready read what was kept, if anything fits it.

        The worker is asked in this call, so before any request that is sent to it later.
        """
        fitting = [one for one in self._files if one.fingerprint == worker.facts.fingerprint]
        if not fitting or worker.machine is not None:
            return
        kept = fitting[-1]
        self._files.remove(kept)
        with ExitStack() as ends:
            ends.callback(os.close, kept.fd)
            try:
                ends.enter_context(lent(kept.fd))
            except (OSError, RuntimeError) as err:  # no socket, or no thread
                logger.warning("kv_not_given model=%s: %s", kept.model, err)
                return
            answer = worker.move_kv(ImportKv(worker.epoch, os.getpid(), kept.fd))
            task = asyncio.create_task(_given(kept, answer))
            held = ends.pop_all()
        self._giving.add(task)
        task.add_done_callback(self._giving.discard)
        task.add_done_callback(lambda _: held.close())

    def make_room(self, n_bytes: int) -> None:
        """Drop files, the oldest first, until so many bytes are free."""
        while self._files and self._free_bytes() < n_bytes:
            self._drop(self._files[0])

    def forget(self, model: str) -> None:
        """Drop the files of a model that is served no more."""
        for one in [one for one in self._files if one.model == model]:
            self._drop(one)

    async def close(self) -> None:
        """Drop everything."""
        giving = list(self._giving)
        for task in giving:
            task.cancel()
        await asyncio.gather(*giving, return_exceptions=True)
        for one in list(self._files):
            self._drop(one)

    def _drop(self, one: Kept) -> None:
        self._files.remove(one)
        os.close(one.fd)


async def _given(kept: Kept, answer: asyncio.Future[KvMoved]) -> None:
    try:
        async with asyncio.timeout(MOVE_S):
            taken = await answer
    except TimeoutError:
        logger.warning("kv_not_given model=%s: not within %g s", kept.model, MOVE_S)
        return
    logger.info(
        "kv_given model=%s sequences=%d tokens=%d bytes=%d import_s=%.3f %s",
        kept.model,
        taken.n_sequences,
        taken.n_tokens,
        taken.n_bytes,
        taken.seconds,
        taken.error,
    )
