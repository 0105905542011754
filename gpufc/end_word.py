"""A word of shared memory that the kernel marks as soon as the process that holds it begins to end.

A pidfd tells of a process's end once its memory has been given back: 70 ms for 2 GiB, and more with
a GPU's memory. The kernel looks through a thread's robust futexes before that (get_robust_list(2),
futex(2)), and wakes a thread that waits for one. A C library keeps the list, so the holder locks a
mutex of glibc, whose first word is the futex. The other side uses that word only: it trusts nothing
else in memory that the holder can write.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import struct
from enum import Enum

END_FD = "GPUFC_END_FD"
"""The variable that names the descriptor to a worker."""

_SIZE = mmap.PAGESIZE
_WAITERS, _OWNER_DIED, _OWNER = 0x8000_0000, 0x4000_0000, 0x3FFF_FFFF
_FUTEX_WAIT = 0
_SYS_FUTEX = {"x86_64": 202, "aarch64": 98}
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_MUTEX_BYTES = 64
"""Room for glibc's `pthread_mutex_t` and its attributes, which are smaller on every machine."""


class Seen(Enum):
    """What a look at the word has shown."""

    ENDS = "ends"
    LIVES = "lives"
    NOT_HELD = "not_held"


def is_supported() -> bool:
    """Whether this C library and this machine are known to work."""
    try:  # another library may know the name and have no answer
        is_glibc = bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (OSError, ValueError):
        is_glibc = False
    return is_glibc and platform.machine() in _SYS_FUTEX


def make() -> int:
    """A descriptor of a new word, of a memory file that cannot be cut. Raises `OSError`."""
    fd = os.memfd_create("gpufc-end", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, _SIZE)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def hold(fd: int) -> None:
    """Hold the word until the calling thread ends, which has to be the last of the process to
    return. The memory stays mapped, and `fd` is not kept. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    length, offset = ctypes.c_size_t(_SIZE), ctypes.c_long(0)
    access = mmap.PROT_READ | mmap.PROT_WRITE
    # not Python's, which keeps a copy of the descriptor
    address = libc.mmap(None, length, access, mmap.MAP_SHARED, fd, offset)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    mutex = (ctypes.c_char * _MUTEX_BYTES).from_address(address)
    attributes = ctypes.create_string_buffer(_MUTEX_BYTES)
    shared = robust = 1
    _require(libc.pthread_mutexattr_init(attributes))
    _require(libc.pthread_mutexattr_setpshared(attributes, shared))
    _require(libc.pthread_mutexattr_setrobust(attributes, robust))
    _require(libc.pthread_mutex_init(mutex, attributes))
    _require(libc.pthread_mutex_lock(mutex))
    word = ctypes.c_uint32.from_address(address)
    word.value |= _WAITERS  # without it, the kernel wakes no thread; no other writes here


class Watch:
    """The other side of a word, which it only reads.

    Belongs to one thread; only it may close it."""

    def __init__(self, fd: int) -> None:
        """`fd` is not kept. Raises `OSError`."""
        self._memory = mmap.mmap(fd, _SIZE)
        self._word = ctypes.c_uint32.from_buffer(self._memory)
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._number = ctypes.c_long(_SYS_FUTEX[platform.machine()])

    def wait(self, timeout_s: float) -> Seen:
        """Wait until the holder begins to end, for `timeout_s` at most."""
        value = self._word.value
        if (seen := _meaning(value)) is not Seen.LIVES:
            return seen
        whole = int(timeout_s)
        limit = struct.pack("@ll", whole, int((timeout_s - whole) * 1e9))
        self._syscall(
            self._number, ctypes.byref(self._word), _FUTEX_WAIT, ctypes.c_uint32(value), limit
        )
        return _meaning(self._word.value)

    def close(self) -> None:
        del self._word
        self._memory.close()


def _meaning(value: int) -> Seen:
    if value & _OWNER_DIED:
        return Seen.ENDS
    return Seen.LIVES if value & _OWNER else Seen.NOT_HELD


def _require(result: int) -> None:
    if result not in (0, errno.EOWNERDEAD):
        raise OSError(result, os.strerror(result))
