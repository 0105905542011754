"""A filter of system calls, made by libseccomp, which knows their numbers on each architecture.

Lists what no worker needs: sockets other than local ones, other processes' memory, and the parts of
the kernel that escapes have used most. io_uring would open sockets past the filter.
"""

import ctypes
import errno
import platform

from engine_worker.confinement.landlock import NotConfined

_LIBRARY = "libseccomp.so.2"
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EPERM
_TSYNC = 4
"""`SCMP_FLTATR_CTL_TSYNC`: the filter holds for all threads."""
_ABSENT_CALL = 0x00050000 | errno.ENOSYS
_NOT_EQUAL, _MASKED_EQUAL = 1, 7
_AF_UNIX = 1
_ABSENT = -1
_FLAGS_OF_CLONE = 1 if platform.machine() == "s390x" else 0

REFUSED = (
    *("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("bpf", "perf_event_open", "userfaultfd", "open_by_handle_at", "syslog", "acct"),
    *("add_key", "request_key", "keyctl"),
    *("mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "mount_setattr"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "unshare", "setns"),
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load"),
    *("swapon", "swapoff", "reboot", "iopl", "ioperm", "quotactl", "sethostname"),
    *("settimeofday", "clock_settime", "clock_adjtime", "setdomainname"),
)
"""Refused with EPERM, as a process without privileges is."""

NAMESPACES = (
    *(0x00020000, 0x02000000, 0x04000000, 0x08000000),
    *(0x10000000, 0x20000000, 0x40000000),
)
"""`clone`'s flags for new ones: mounts, cgroups, names, IPC, users, processes, network."""


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def is_available() -> bool:
    """Whether libseccomp is installed."""
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return False
    return True


def refuse() -> None:
    """Refuse the calls from now on, in all threads and descendants. Raises `NotConfined`."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        raise NotConfined(f"{_LIBRARY} is not installed") from None
    library.seccomp_init.restype = ctypes.c_void_p
    made = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ALLOW)))
    if not made:
        raise NotConfined("libseccomp makes no filter")
    try:
        _done(library.seccomp_attr_set(made, _TSYNC, ctypes.c_uint32(1)))
        for name in REFUSED:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number != _ABSENT:  # else this architecture, or libseccomp, does not know it
                _done(library.seccomp_rule_add_array(made, _refusal(), number, 0, None))
        number = library.seccomp_syscall_resolve_name(b"socket")
        other = _Comparison(0, _NOT_EQUAL, _AF_UNIX, 0)
        _done(library.seccomp_rule_add_array(made, _refusal(), number, 1, ctypes.byref(other)))
        number = library.seccomp_syscall_resolve_name(b"clone")
        for flag in NAMESPACES:
            asks = _Comparison(_FLAGS_OF_CLONE, _MASKED_EQUAL, flag, flag)
            _done(library.seccomp_rule_add_array(made, _refusal(), number, 1, ctypes.byref(asks)))
        number = library.seccomp_syscall_resolve_name(b"clone3")
        if number != _ABSENT:  # its flags lie in memory; the C library then uses `clone`
            absent = ctypes.c_uint32(_ABSENT_CALL)
            _done(library.seccomp_rule_add_array(made, absent, number, 0, None))
        _done(library.seccomp_load(made))
    finally:
        library.seccomp_release(made)


def _refusal() -> ctypes.c_uint32:
    return ctypes.c_uint32(_REFUSE)


def _done(code: int) -> None:
    if code < 0:
        raise NotConfined(f"the filter of system calls is refused: {errno.errorcode.get(-code)}")
