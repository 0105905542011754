"""How long llama.cpp's threads stay awake while they wait for each other, with GNU's OpenMP.

libgomp has two limits (`gomp_spin_count_var` and `gomp_throttled_spin_count_var` in its env.c):
300,000 rounds, some milliseconds, as long as it has no more threads than there are cores, and 100
rounds otherwise. It compares at each wait. So a second team of sleeping threads, which never gets
any work, makes all waits of the process short, and they are long again once that team has ended.
"""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, Self


class Waiting(Protocol):
    """How the threads wait."""

    def be_short(self) -> None:
        """Sleep almost at once: for cores that others want. A second call does nothing."""
        ...

    def be_long(self) -> None:
        """Stay awake, as at first: for cores of one's own. A second call does nothing."""
        ...


class AsItIs:
    """Nothing can be changed: no OpenMP, or another one."""

    def be_short(self) -> None:
        return

    def be_long(self) -> None:
        return


class GnuWaiting:
    """libgomp's two limits, for a process whose computing thread has a team of `n_threads`."""

    def __init__(self, library: ctypes.CDLL, n_threads: int, n_cores: int) -> None:
        self._parallel = library.GOMP_parallel
        self._parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        self._parallel.restype = None
        self._n_surplus = max(1, n_cores - n_threads + 1)
        self._owner: ThreadPoolExecutor | None = None

    @classmethod
    def of(cls, n_threads: int, n_cores: int) -> Self | None:
        """None if this process has no libgomp."""
        try:
            library = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        except OSError:
            return None
        return cls(library, n_threads, n_cores)

    def be_short(self) -> None:
        if self._owner is None:
            self._owner = ThreadPoolExecutor(1, thread_name_prefix="surplus")
            nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)  # free(NULL)
            self._owner.submit(self._parallel, nothing, None, self._n_surplus + 1, 0).result()

    def be_long(self) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.shutdown()  # libgomp ends a thread's team together with that thread
