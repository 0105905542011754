"""The hand-over of computed KV from a worker that is about to be replaced to its successor.

The engine thread of each worker calls this between two steps, since only that thread may touch the
cache. The successor prefills every sequence that is not handed over, as after a crash. So a failure
here makes streams wait longer and never ends them.
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
from gpufc import lending
from gpufc.protocol import ExportKv, ImportKv, KvMoved

logger = logging.getLogger(__name__)


class KvStates(Protocol):
    """The part of a `Backend` that exports and imports the KV of one slot."""

    def keeps_prefix(self, slot: int, n_tokens: int) -> bool: ...
    def state_bytes(self, slot: int) -> int: ...
    def export_state(self, slot: int, memory: memoryview) -> int: ...
    def import_state(self, slot: int, memory: memoryview) -> bool: ...


class KvKeeper(Protocol):
    """The part of the slots' book-keeping that a hand-over needs."""

    def take_edits(self) -> list[KvEdit]:
        """The edits that are decided and not applied yet, in order; the caller applies them."""
        ...

    def holdings(self) -> list[Holding]:
        """All holdings: running sequences first, then idle ones, the most recently used first."""
        ...

    def adopt(self, scope: str, tokens: tuple[int, ...]) -> int | None:
        """Make `tokens` an idle holding in a free slot and return it; None without a free slot."""
        ...

    def disown(self, slot: int) -> None:
        """Free a slot that was adopted and could not be filled."""
        ...


class Transfer(Struct, frozen=True):
    """The amount that was handed over and the time that it took."""

    n_sequences: int
    n_tokens: int
    n_bytes: int
    seconds: float


def export(
    backend: KvStates, holdings: Iterable[Holding], fd: int, *, fingerprint: str, limit_bytes: int
) -> Transfer:
    """Write holdings into the empty memory file `fd`, in order. One that does not fit is left out,
    and one after which no sequence could go on.

    Raises `OSError` when the system has no memory for them.
    """
    started = time.monotonic()
    writer = KvWriter(fd, limit_bytes)
    for held in holdings:
        if not backend.keeps_prefix(held.slot, len(held.tokens)):
            continue

        def fill(memory: memoryview, slot: int = held.slot) -> int:
            return backend.export_state(slot, memory)

        writer.add(held.scope, held.tokens, backend.state_bytes(held.slot), fill)
    writer.finish(fingerprint)
    n_tokens = sum(len(saved.tokens) for saved in writer.sequences)
    seconds = time.monotonic() - started
    return Transfer(len(writer.sequences), n_tokens, writer.n_bytes, seconds)


def take_over(backend: KvStates, keeper: KvKeeper, fd: int, *, fingerprint: str) -> Transfer:
    """Fill free slots from a finished memory file, until no slot is free.

    Raises `KvFileError` if the file cannot be used or has another fingerprint.
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
    """Carry out the front's request and report it. A failure is reported, not raised."""
    fingerprint, is_import = backend.facts.fingerprint, isinstance(message, ImportKv)
    # pending edits first: an export would else contain cells of rejected drafts, and a removal
    # that is applied after an import would delete cells that were just taken over
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
    """A copy of descriptor `owner_fd` of the front's process, which must be a memory file.

    The front lends it to processes of the same user. With `sealed` the file must be sealed
    against every change. Without, it must be empty and unsealed: the front may have given up, and
    the descriptor may belong to another file by now. Raises `KvFileError`.
    """
    try:
        fd = lending.borrowed(owner_pid, owner_fd)
    except OSError as err:
        raise KvFileError(f"the memory file cannot be had: {err}") from err
    try:
        _require_memory_file(fd, sealed=sealed)
        yield fd
    except OSError as err:
        raise KvFileError(f"the memory file cannot be used: {err}") from err
    finally:
        os.close(fd)


def _require_memory_file(fd: int, *, sealed: bool) -> None:
    """Raise `KvFileError` for a memory file in the wrong state, `OSError` for any other file."""
    seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)  # fails unless it is a memory file
    if sealed and seals & SEALS != SEALS:
        raise KvFileError("the memory file is not sealed")
    if not sealed and (seals or os.fstat(fd).st_size):
        raise KvFileError("the memory file is not new")
