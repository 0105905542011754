"""Carries computed KV from a worker to its successor of the same fingerprint.

The front makes a memory file (memfd) without a name. The old worker writes it once, the front seals
it against any further write, and the new worker reads it. Then the file is gone.
"""

import asyncio
import fcntl
import logging
import os
from typing import Protocol

import psutil

from gpufc import cgroup
from gpufc.facts import ModelFacts
from gpufc.ids import Epoch
from gpufc.lending import lent
from gpufc.protocol import ExportKv, ImportKv, KvMoved

logger = logging.getLogger(__name__)

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
MOVE_S = 10.0
"""The longest wait for either worker. An engine answers after its current step."""
MEMORY_SHARE = 0.25
"""The largest share of free memory that the file may take, until the successor has read it."""

DEFAULT_BYTES = 1 << 30
"""The most bytes to carry by default, unless GPUs compute all layers."""


def limit(wanted: int | None, old: ModelFacts, new: ModelFacts) -> int:
    """The most bytes to carry between these workers. `wanted` is the configuration's.

    The default is 0 where GPUs compute all layers: there the prefill was measured to be faster.
    """
    if wanted is not None:
        return wanted
    on_gpus = all(facts.n_gpu_layers >= facts.n_layers for facts in (old, new))
    return 0 if on_gpus else DEFAULT_BYTES


class KvWorker(Protocol):
    """A worker that can move KV (`worker.Worker`)."""

    epoch: Epoch

    async def move_kv(self, message: ExportKv | ImportKv) -> KvMoved:
        """Let the worker move KV, and wait for its answer or its loss. Both may say an error."""
        ...


async def hand_over(old: KvWorker, new: KvWorker, limit_bytes: int) -> KvMoved | None:
    """Carry the KV of `old` to `new`. None if that was not possible: `new` prefills then.

    Never raises; both workers serve on as before. `limit_bytes` 0 switches it off.
    """
    limit_bytes = min(limit_bytes, int(_free_bytes() * MEMORY_SHARE))
    if limit_bytes <= 0:
        return None
    try:
        async with asyncio.timeout(MOVE_S):
            return await _hand_over(old, new, limit_bytes)
    except (OSError, TimeoutError) as err:
        logger.warning("kv_not_handed_over: %s", str(err) or f"not within {MOVE_S:g} s")
        return None


async def _hand_over(old: KvWorker, new: KvWorker, limit_bytes: int) -> KvMoved | None:
    fd = os.memfd_create("gpufc-kv", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with lent(fd):
            exported = await old.move_kv(ExportKv(old.epoch, os.getpid(), fd, limit_bytes))
            if exported.error or not exported.n_sequences:
                logger.info("kv_not_exported: %s", exported.error or "there is none")
                return None
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            taken = await new.move_kv(ImportKv(new.epoch, os.getpid(), fd))
    finally:
        os.close(fd)
    logger.info(
        "kv_handed_over sequences=%d/%d tokens=%d bytes=%d export_s=%.3f import_s=%.3f %s",
        taken.n_sequences,
        exported.n_sequences,
        taken.n_tokens,
        taken.n_bytes,
        exported.seconds,
        taken.seconds,
        taken.error,
    )
    return taken


def _free_bytes() -> int:
    """Available memory of the machine, within the limits of a container."""
    limit = cgroup.limits().memory_free_bytes
    available = psutil.virtual_memory().available
    return available if limit is None else min(available, limit)
