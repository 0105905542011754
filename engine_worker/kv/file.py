"""The memory file that carries the KV states of sequences from one worker to its successor.

The front creates the file as anonymous memory (memfd). The worker that is about to be replaced
writes it once, the front seals it, and the successor reads it. Its layout:

    state, state, …      each as the backend exports it, starting at a page boundary
    index                msgpack of `Index`
    trailer              the index's offset and length, 8 bytes each (little endian)

A worker accepts only a file that was written under its own model fingerprint.
"""

import mmap
import os
import struct
from collections.abc import Callable

import msgspec
from msgspec import Struct

from gpufc.errors import GpufcError

_TRAILER = struct.Struct("<QQ")
MAX_INDEX_BYTES = 64 * 1024 * 1024

Fill = Callable[[memoryview], int]
"""Writes one state into the given memory and returns the number of bytes written."""


class KvFileError(GpufcError):
    """A memory file that cannot be used. Its sequences are prefilled instead."""


class SavedSequence(Struct, frozen=True, array_like=True):
    """One state: the KV of all `tokens`, which sequences of the same `scope` may copy."""

    scope: str
    tokens: tuple[int, ...]
    offset: int
    size: int


class Index(Struct, frozen=True, array_like=True):
    """The file's states and the fingerprint of the model and settings that computed them."""

    fingerprint: str
    sequences: tuple[SavedSequence, ...]


class KvWriter:
    """Fills an empty memory file with at most `limit_bytes` of states, then with their index.

    `n_bytes` is the size of all states so far, padding included.
    """

    def __init__(self, fd: int, limit_bytes: int) -> None:
        self.n_bytes = 0
        self.sequences: list[SavedSequence] = []
        self._fd = fd
        self._limit = limit_bytes

    def add(self, scope: str, tokens: tuple[int, ...], size: int, fill: Fill) -> bool:
        """Append one state of `size` bytes. False if it does not fit or `fill` wrote another size.

        Raises `OSError` when the system has no memory for it.
        """
        padded = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        if size <= 0 or self.n_bytes + padded > self._limit:
            return False
        offset = self.n_bytes
        # reserve the pages: a store into a page that the system cannot provide raises SIGBUS
        os.posix_fallocate(self._fd, offset, padded)
        with mmap.mmap(self._fd, padded, offset=offset) as memory, memoryview(memory) as view:
            written = fill(view[:size])
        if written != size:
            return False
        self.n_bytes += padded
        self.sequences.append(SavedSequence(scope, tokens, offset, size))
        return True

    def finish(self, fingerprint: str) -> None:
        """Write the index. No mapping is left, so the front can seal the file."""
        index = msgspec.msgpack.encode(Index(fingerprint, tuple(self.sequences)))
        trailer = _TRAILER.pack(self.n_bytes, len(index))
        os.ftruncate(self._fd, self.n_bytes)
        _write_at(self._fd, index + trailer, self.n_bytes)


class KvReader:
    """The states of a finished memory file.

    Raises `KvFileError` if the file is damaged, unfinished or of another `fingerprint`.
    """

    def __init__(self, fd: int, fingerprint: str) -> None:
        self._fd = fd
        index = _read_index(fd)
        if index.fingerprint != fingerprint:
            raise KvFileError(f"another model has computed it: {index.fingerprint}")
        self.sequences = index.sequences

    def state(self, saved: SavedSequence) -> mmap.mmap:
        """One state, mapped copy-on-write because the file is sealed. The caller closes it."""
        return mmap.mmap(self._fd, saved.size, access=mmap.ACCESS_COPY, offset=saved.offset)


def _read_index(fd: int) -> Index:
    size = os.fstat(fd).st_size
    try:
        offset, length = _TRAILER.unpack(os.pread(fd, _TRAILER.size, size - _TRAILER.size))
        if length > MAX_INDEX_BYTES or offset + length + _TRAILER.size != size:
            raise KvFileError("the memory file was not finished")
        index = msgspec.msgpack.decode(os.pread(fd, length, offset), type=Index)
    except (struct.error, OSError, msgspec.DecodeError) as err:
        raise KvFileError(f"the memory file cannot be read: {err}") from err
    if any(
        saved.offset % mmap.PAGESIZE or saved.size <= 0 or saved.offset + saved.size > offset
        for saved in index.sequences
    ):
        raise KvFileError("the memory file's index points outside of it")
    return index


def _write_at(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        n_written = os.pwrite(fd, view, offset)
        view, offset = view[n_written:], offset + n_written
