"""KV handed from a worker that is about to be replaced to the one that takes over.

The engine thread of either calls this between two steps: it is the only one that may touch the
cache. What cannot be handed over is prefilled by the successor, as after a crash: nothing here
decides whether a stream goes on, only how soon.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from msgspec import Struct

from engine_worker.backend.port import Backend
from engine_worker.kv import edits
from engine_worker.kv.edits import Holding, KvEdit
from engine_worker.kv.file import KvFileError, KvReader, KvWriter
from gpufc.protocol import ExportKv, ImportKv, KvMoved

logger = logging.getLogger(__name__)


class KvStates(Protocol):
    """The part of a `Backend` that takes one sequence's KV out and puts it in again."""

    def state_bytes(self, slot: int) -> int: ...
    def export_state(self, slot: int, memory: memoryview) -> int: ...
    def import_state(self, slot: int, memory: memoryview) -> bool: ...


class KvKeeper(Protocol):
    """The part of a scheduler that knows which sequences have cells."""

    def take_edits(self) -> list[KvEdit]:
        """What it has decided and the cache has yet to follow, in this order."""
        ...

    def holdings(self) -> list[Holding]:
        """All that is computed: running sequences first, then idle ones, latest used first."""
        ...

    def adopt(self, scope: str, tokens: tuple[int, ...]) -> int | None:
        """A free slot that holds `tokens` from now on, as an idle prefix; None without one."""
        ...

    def disown(self, slot: int) -> None:
        """What was adopted could not be filled: the slot is free again."""
        ...


class Transfer(Struct, frozen=True):
    """What was handed over, and how long it took."""

    n_sequences: int
    n_tokens: int
    n_bytes: int
    seconds: float


def export(
    backend: KvStates, holdings: Iterable[Holding], fd: int, *, fingerprint: str, limit_bytes: int
) -> Transfer:
    """Write holdings into the empty memory file `fd`, best first, as many as fit.

    Raises `OSError` when there is no memory for them.
    """
    started = time.monotonic()
    writer = KvWriter(fd, limit_bytes)
    for held in holdings:

        def fill(memory: memoryview, slot: int = held.slot) -> int:
            return backend.export_state(slot, memory)

        writer.add(held.scope, held.tokens, backend.state_bytes(held.slot), fill)
    writer.finish(fingerprint)
    n_tokens = sum(len(saved.tokens) for saved in writer.sequences)
    seconds = time.monotonic() - started
    return Transfer(len(writer.sequences), n_tokens, writer.n_bytes, seconds)


def take_over(backend: KvStates, keeper: KvKeeper, fd: int, *, fingerprint: str) -> Transfer:
    """Fill free slots from a finished memory file. What does not fit is left out.

    Raises `KvFileError` if the file is not for this worker.
    """
    started = time.monotonic()
    n_sequences = n_tokens = n_bytes = 0
    reader = KvReader(fd, fingerprint)
    for saved in reader.sequences:
        slot = keeper.adopt(saved.scope, saved.tokens)
        if slot is None:
            break
        with reader.state(saved) as state, memoryview(state) as memory:
            taken = backend.import_state(slot, memory)
        if not taken:
            keeper.disown(slot)
            continue
        n_sequences += 1
        n_tokens += len(saved.tokens)
        n_bytes += saved.size
    return Transfer(n_sequences, n_tokens, n_bytes, time.monotonic() - started)


def move(message: ExportKv | ImportKv, backend: Backend, keeper: KvKeeper) -> KvMoved:
    """Do what the front asked for. Never raises: what is not handed over is prefilled."""
    fingerprint, is_import = backend.facts.fingerprint, isinstance(message, ImportKv)
    # else cells of drafts that did not hold would go along, and what is taken over be removed
    edits.apply(keeper.take_edits(), backend)
    try:
        with opened(message.pid, message.fd, sealed=is_import) as fd:
            if isinstance(message, ImportKv):
                done = take_over(backend, keeper, fd, fingerprint=fingerprint)
            else:
                done = export(
                    backend,
                    keeper.holdings(),
                    fd,
                    fingerprint=fingerprint,
                    limit_bytes=message.limit_bytes,
                )
    except (KvFileError, OSError) as err:
        logger.warning("kv_not_moved import=%s: %s", is_import, err)
        return KvMoved(message.epoch, 0, 0, 0, 0.0, error=str(err) or type(err).__name__)
    logger.info("kv_moved import=%s %s", is_import, done)
    return KvMoved(message.epoch, done.n_sequences, done.n_tokens, done.n_bytes, done.seconds)


SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@contextmanager
def opened(owner_pid: int, owner_fd: int, *, sealed: bool) -> Iterator[int]:
    """A memory file that lies open in the front's process, by that process's own table.

    Nobody but a process of the same user may open it there. With `sealed` it must not be
    writable by anybody any more, else it must be new: the front may have lost patience, and its
    descriptor be another file's by now. Raises `KvFileError`.
    """
    mode = os.O_RDONLY if sealed else os.O_RDWR
    try:
        fd = os.open(f"/proc/{owner_pid}/fd/{owner_fd}", mode | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as err:
        raise KvFileError(f"the memory file cannot be opened: {err}") from err
    try:
        _require_memory_file(fd, sealed=sealed)
        yield fd
    except OSError as err:
        raise KvFileError(f"the memory file cannot be used: {err}") from err
    finally:
        os.close(fd)


def _require_memory_file(fd: int, *, sealed: bool) -> None:
    """Raises `KvFileError` for one in another state, `OSError` for any other file."""
    seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)  # only memory files have any
    if sealed and seals & SEALS != SEALS:
        raise KvFileError("the memory file is not sealed")
    if not sealed and (seals or os.fstat(fd).st_size):
        raise KvFileError("the memory file is not new")
