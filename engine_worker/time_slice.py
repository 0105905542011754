"""How long a thread computes before the kernel looks whether another one should (Linux).

Threads of equal weight have equal shares of a core. The time slice says in how large pieces: a
thread that wakes up takes the core at once from one whose slice is longer than its own, else it
waits for the end of that slice. Since Linux 6.12 a thread may choose its own (sched_setattr(2);
`PREEMPT_SHORT` in kernel/sched/features.h). Older kernels take the value and do nothing with it.
"""

import ctypes
import platform
from collections.abc import Mapping

COMPUTING_S = 0.01
"""The slice of a thread that computes passes. Front, channel and clients have some 3 ms or less,
work for a tenth of that on each token, and would wait whole slices for it. The kernel allows up to
0.1 s. What matters is that it is longer: twice the usual one did as well as more."""

_SET = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
_GET = {"x86_64": 315, "aarch64": 275, "riscv64": 275}
"""The numbers of sched_setattr and sched_getattr, for which glibc has no functions before 2.41."""

_OTHER, _BATCH = 0, 3
"""The policies under which `runtime` is the slice. Under others it is something else."""


class _Attributes(ctypes.Structure):
    """`struct sched_attr` in its first version. Times are in nanoseconds."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def choose(slice_s: float | None) -> None:
    """Have slices of so many seconds for the calling thread, and for threads that it will start;
    None for the kernel's own choice. Its weight stays. The kernel may refuse it, as in some
    containers: the thread then goes on as before."""
    attributes = _attributes()
    if attributes is not None:
        attributes.runtime = 0 if slice_s is None else round(slice_s * 1e9)
        _call(_SET, 0, ctypes.byref(attributes), 0)


def chosen(thread: int = 0) -> float | None:
    """The slice of a thread, by its kernel's number or else of the calling one, in seconds. None
    where the kernel does not tell."""
    attributes = _attributes(thread)
    return attributes.runtime / 1e9 if attributes is not None and attributes.runtime else None


def _attributes(thread: int = 0) -> _Attributes | None:
    """Those of a thread; None where its policy knows no slices."""
    found = _Attributes(size=ctypes.sizeof(_Attributes))
    is_told = _call(_GET, thread, ctypes.byref(found), found.size, 0)
    return found if is_told and found.policy in (_OTHER, _BATCH) else None


def _call(numbers: Mapping[str, int], *arguments: object) -> bool:
    """A system call; false if there is none of that name, or if it is refused."""
    number = numbers.get(platform.machine()) if platform.system() == "Linux" else None
    return number is not None and ctypes.CDLL(None).syscall(number, *arguments) == 0
