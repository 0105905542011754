"""The descriptors 0, 1 and 2, which a caller may have closed (`start 0<&-`)."""

import os
import sys
from typing import Any


def open_all() -> None:
    """Open descriptors 0, 1 and 2 on /dev/null where the caller has closed them.

    Otherwise a socket would get such a number, and the event loop's library aborts on it.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            os.set_inheritable(fd, True)
    sys.stdin = sys.stdin or _stream(0, "r")
    sys.stdout = sys.stdout or _stream(1, "w")
    sys.stderr = sys.stderr or _stream(2, "w")


def _stream(fd: int, mode: str) -> Any:
    return open(fd, mode, encoding="utf-8", errors="backslashreplace", closefd=False)
