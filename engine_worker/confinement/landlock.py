"""Landlock: rules that a process sets for itself and its descendants, for ever (landlock(7)).

Calls the kernel directly: neither Python nor the C library wraps these three calls.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from enum import IntFlag

from msgspec import Struct

_CREATE, _ADD, _RESTRICT = 444, 445, 446
"""Numbers of the system calls, the same on all architectures."""

_VERSION = 1 << 0
_TSYNC = 1 << 3
_PATH_BENEATH = 1
_TCP = 0b11
"""Binding and connecting."""

ABI_REFER, ABI_TRUNCATE, ABI_TCP, ABI_IOCTL, ABI_TSYNC = 2, 3, 4, 5, 8
"""The first versions that have each."""


class Right(IntFlag):
    """Rights on files and folders, as the kernel numbers them."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


LIST = Right.READ_DIR
READ = Right.EXECUTE | Right.READ_FILE | Right.READ_DIR
DEVICE = READ | Right.WRITE_FILE | Right.IOCTL_DEV
WRITE = (
    READ
    | Right.WRITE_FILE
    | Right.TRUNCATE
    | Right.MAKE_REG
    | Right.MAKE_DIR
    | Right.REMOVE_FILE
    | Right.REMOVE_DIR
    | Right.REFER
)

_OF_FILES = Right.EXECUTE | Right.WRITE_FILE | Right.READ_FILE | Right.TRUNCATE | Right.IOCTL_DEV
"""The rights that a rule for a file may have; a folder's may have all."""


class Rule(Struct, frozen=True, order=True):
    """Rights on a file, or on a folder and all beneath it."""

    path: str
    rights: Right


class NotConfined(Exception):
    """The kernel has refused, for the reason that it gives."""


def version() -> int:
    """The kernel's version of Landlock; 0 if it has none, or if it is switched off."""
    found = _libc().syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    return max(0, int(found))


def restrict(rules: Iterable[Rule] | None, abi: int) -> None:
    """Forbid everything on files that no rule allows, and TCP where the kernel knows it.

    Without rules, files are left alone. A rule whose path is not there is passed over. The process
    must have given up gaining privileges. Raises `NotConfined`.
    """
    handled = 0 if rules is None else _known(abi)
    attributes = struct.pack("=QQ", handled, _TCP if abi >= ABI_TCP else 0)
    ruleset = _call("create", _CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        for rule in rules or ():
            _add(ruleset, rule, handled)
        _call("restrict", _RESTRICT, ruleset, _TSYNC if abi >= ABI_TSYNC else 0)
    finally:
        os.close(ruleset)


def _known(abi: int) -> int:
    known = (Right.MAKE_SYM << 1) - 1
    for right, since in (
        (Right.REFER, ABI_REFER),
        (Right.TRUNCATE, ABI_TRUNCATE),
        (Right.IOCTL_DEV, ABI_IOCTL),
    ):
        if abi >= since:
            known |= right
    return known


def _add(ruleset: int, rule: Rule, handled: int) -> None:
    try:
        fd = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        allowed = rule.rights & handled
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            allowed &= _OF_FILES
        beneath = struct.pack("=Qi", allowed, fd)
        _call("add a rule", _ADD, ruleset, _PATH_BENEATH, beneath, 0)
    finally:
        os.close(fd)


def _call(what: str, number: int, *arguments: object) -> int:
    result = int(_libc().syscall(number, *arguments))
    if result < 0:
        raise NotConfined(f"Landlock does not {what}: {os.strerror(ctypes.get_errno())}")
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
