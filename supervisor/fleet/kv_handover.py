"""Carries computed KV from a worker to its successor of the same fingerprint.

The front makes a memory file (memfd) without a name. The old worker writes it once, the front seals
it against any further write, and the new worker reads it. Then the file is gone.
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import Awaitable
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


def limit(
    wanted: int | None, old: ModelFacts, new: ModelFacts, default: int = DEFAULT_BYTES
) -> int:
    """The most bytes to carry between these workers. `wanted` is the configuration's.

    The default is 0 where GPUs compute all layers: there the prefill was measured to be faster.
    """
    if wanted is not None:
        return wanted
    on_gpus = all(facts.n_gpu_layers >= facts.n_layers for facts in (old, new))
    return 0 if on_gpus else default


class KvWorker(Protocol):
    """A worker that can move KV (`worker.Worker`)."""

    epoch: Epoch

    def move_kv(self, message: ExportKv | ImportKv) -> Awaitable[KvMoved]:
        """Ask the worker to move KV. Its answer or its loss follows. Both may say an error."""
        ...


async def hand_over(old: KvWorker, new: KvWorker, limit_bytes: int) -> KvMoved | None:
    """Carry the KV of `old` to `new`. None if that was not possible: `new` prefills then.

    Never raises; both workers serve on as before. `limit_bytes` 0 switches it off.
    """
    found = await exported(old, limit_bytes)
    if found is None:
        return None
    fd, written = found
    try:
        with lent(fd):
            async with asyncio.timeout(MOVE_S):
                taken = await new.move_kv(ImportKv(new.epoch, os.getpid(), fd))
    except (OSError, RuntimeError, TimeoutError) as err:
        logger.warning("kv_not_handed_over: %s", str(err) or f"not within {MOVE_S:g} s")
        return None
    finally:
        os.close(fd)
    logger.info(
        "kv_handed_over sequences=%d/%d tokens=%d bytes=%d export_s=%.3f import_s=%.3f %s",
        taken.n_sequences,
        written.n_sequences,
        taken.n_tokens,
        taken.n_bytes,
        written.seconds,
        taken.seconds,
        taken.error,
    )
    return taken


async def exported(worker: KvWorker, limit_bytes: int) -> tuple[int, KvMoved] | None:
    """A sealed memory file with the KV of a worker, which the caller closes, and the worker's
    report. None if there is nothing to carry or it was not possible. Never raises."""
    limit_bytes = min(limit_bytes, int(free_bytes() * MEMORY_SHARE))
    if limit_bytes <= 0:
        return None
    fd = -1
    try:
        fd = os.memfd_create("gpufc-kv", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with lent(fd):
            async with asyncio.timeout(MOVE_S):
                written = await worker.move_kv(ExportKv(worker.epoch, os.getpid(), fd, limit_bytes))
        if written.error or not written.n_sequences:
            logger.info("kv_not_exported: %s", written.error or "there is none")
        else:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            found, fd = fd, -1
            return found, written
    except (OSError, RuntimeError, TimeoutError) as err:  # no socket, no thread, no answer
        logger.warning("kv_not_exported: %s", str(err) or f"not within {MOVE_S:g} s")
    finally:
        if fd >= 0:
            os.close(fd)
    return None


def free_bytes() -> int:
    """Available memory of the machine, within the limits of a container."""
    limit = cgroup.limits().memory_free_bytes
    available = psutil.virtual_memory().available
    return available if limit is None else min(available, limit)
