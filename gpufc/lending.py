"""Passing a descriptor from the front to its workers, which are no longer allowed to open /proc.

The owner lends it at a local socket whose name is made of its pid and the descriptor. The kernel
tells each side who the other one is.
"""

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PATIENCE_S = 5.0
_CREDENTIALS = struct.Struct("=iII")


@contextmanager
def lent(fd: int) -> Iterator[None]:
    """Give copies of `fd` to processes of this user that ask for it meanwhile. Raises `OSError`."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    lender = threading.Thread(target=_lend, args=(listener, fd), name="lend", daemon=True)
    try:
        listener.bind(_name(os.getpid(), fd))
        listener.listen()
        lender.start()
        yield
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        if lender.is_alive():
            lender.join(PATIENCE_S)
        listener.close()


def borrowed(owner_pid: int, owner_fd: int) -> int:
    """A copy of a descriptor that its owner lends now. The caller closes it. Raises `OSError`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.settimeout(PATIENCE_S)
        asked.connect(_name(owner_pid, owner_fd))
        pid, _, _ = _peer(asked)
        if pid != owner_pid:
            raise PermissionError(f"process {pid} lends in the name of {owner_pid}")
        _, found, _, _ = socket.recv_fds(asked, 1, 1)
    if len(found) != 1:
        raise OSError("the descriptor is not lent any more")
    os.set_inheritable(found[0], False)
    return found[0]


def _lend(listener: socket.socket, fd: int) -> None:
    while True:
        try:
            asked, _ = listener.accept()
        except OSError:
            return  # the end of the lending
        with asked, suppress(OSError):
            if _peer(asked)[1] == os.geteuid():
                socket.send_fds(asked, [b"!"], [fd])


def _name(pid: int, fd: int) -> bytes:
    return b"\0gpufc-lent-%d-%d" % (pid, fd)


def _peer(sock: socket.socket) -> tuple[int, int, int]:
    """The peer's pid, user and group."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(data)
    return pid, uid, gid
