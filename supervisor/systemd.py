"""The service manager's protocol, sd_listen_fds(3) and sd_notify(3), without a library."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping, MutableMapping

from gpufc.errors import StartError

FIRST_FD = 3


def is_activated(environ: Mapping[str, str]) -> bool:
    """Whether the service manager has passed sockets to this process."""
    return environ.get("LISTEN_PID") == str(os.getpid()) and environ.get("LISTEN_FDS", "") != "0"


def activated_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The passed listening sockets; none without socket activation.

    Removes the variables, so that no child takes the descriptors for its own. Raises `StartError`
    for a descriptor that is no listening stream socket.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    return [_listener(fd) for fd in range(FIRST_FD, FIRST_FD + int(count))]


def _listener(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)
    try:
        sock = socket.socket(fileno=fd)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as err:
        raise StartError(f"descriptor {fd} of LISTEN_FDS cannot be used: {err}") from err
    if not listens or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        sock.detach()
        raise StartError(f"descriptor {fd} of LISTEN_FDS is no listening internet socket")
    sock.setblocking(False)
    return sock


def writes_to_journal(environ: Mapping[str, str]) -> bool:
    """Whether standard output is the journal, by JOURNAL_STREAM of systemd.exec(5). Processes that
    write elsewhere may have the variable, too."""
    try:
        found = os.fstat(1)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def watchdog_s(environ: Mapping[str, str], *, took_over: bool = False) -> float | None:
    """The time in which the service manager wants a sign of life; None without a watchdog.

    A front that took over from another one has its variables, with the other one's pid.
    """
    limit, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID")
    if not limit.isdigit() or not int(limit):
        return None
    is_ours = pid is None or pid == str(os.getpid()) or took_over
    return int(limit) / 1_000_000 if is_ours else None


async def feed_watchdog(limit_s: float | None) -> None:
    """Give signs of life for ever, from the event loop: one that is stuck gives none."""
    while limit_s is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(limit_s / 3)


def notify(state: str) -> None:
    """Report a state such as `READY=1` to the service manager, if there is one. Never fails."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(state.encode(), address)
