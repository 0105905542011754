"""The listening socket belongs to a service manager: a front comes and goes beneath it."""

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from supervisor.control.client import ControlClient, NotRunning
from tests.integration.fake_service import FAKE, complete, fake_text
from tests.service import clean_environment, wait_for

ACTIVATE = """
import os, sys
fd, *command = sys.argv[1:]
if int(fd) != 3:
    os.dup2(int(fd), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"}
os.execv(command[0], command)
"""
"""As `systemd-socket-activate` does once there is a connection."""


class Manager:
    """Holds a socket, starts fronts on it, and receives their notifications."""

    def __init__(self, folder: Path) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind(str(folder / "notify"))
        self.notified.setblocking(False)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self._folder = folder
        self.control = ControlClient(folder / "run" / "control.sock")

    @contextlib.contextmanager
    def front(self, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-c", ACTIVATE, str(self.listener.fileno())]
        front = [sys.executable, "-c", "from supervisor.cli import main; main()", "start"]
        environ = FAKE | {"NOTIFY_SOCKET": str(self._folder / "notify"), "GPUFC_STANDBY": "none"}
        environ |= variables
        with subprocess.Popen(
            [*command, *front, "--runtime-dir", str(self._folder / "run")],
            env=clean_environment() | environ,
            pass_fds=(self.listener.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield process
            finally:
                process.terminate()
                process.wait(60)

    def heard(self) -> list[bytes]:
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.notified.recv(1000))
        return found

    def status(self) -> dict[str, object] | None:
        with contextlib.suppress(NotRunning):
            return self.control.status()
        return None


def held_by(pid: object) -> list[str]:
    """What the descriptors of a process refer to, without those that it closes meanwhile."""
    held = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            held.append(os.readlink(link))
    return held


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.listener.close()
    made.notified.close()


async def test_connections_before_and_between_fronts_are_served(manager: Manager) -> None:
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        before = asyncio.create_task(complete(session, manager.url, "before"))
        with manager.front() as first:
            status, body, _ = await before
            assert (status, body["choices"][0]["text"]) == (200, fake_text("before", 20))
            found = manager.status()
            assert found is not None
            front = found["front"]
            assert front["addresses"] == [manager.url]  # type: ignore[index]
        assert first.returncode == 0
        between = asyncio.create_task(complete(session, manager.url, "between"))
        with manager.front():
            assert (await between)[0] == 200
    assert manager.heard() == [b"READY=1", b"STOPPING=1"] * 2


def test_a_watchdog_hears_of_the_loop_and_of_a_stuck_one_nothing(manager: Manager) -> None:
    limit_s = 0.3
    with manager.front(WATCHDOG_USEC=str(int(limit_s * 1e6))) as process:
        wait_for(lambda: b"WATCHDOG=1" in manager.heard(), why="the loop feeds the watchdog")
        process.send_signal(signal.SIGSTOP)  # as stuck as a loop can be
        try:
            wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
            manager.heard()
            silent, _, _ = select.select([manager.notified], [], [], 4 * limit_s)
            assert silent == [], "systemd would end it by now"
        finally:
            process.send_signal(signal.SIGCONT)
        wait_for(lambda: b"WATCHDOG=1" in manager.heard(), why="it goes on")


def test_no_process_below_the_front_inherits_the_socket(manager: Manager) -> None:
    with manager.front():
        status = wait_for(manager.status, why="it answers")
        pid = wait_for(lambda: (manager.status() or status)["workers"][0]["pid"], why="a worker")  # type: ignore[index]
        inode = os.fstat(manager.listener.fileno()).st_ino
        held = held_by(pid)
        assert f"socket:[{inode}]" not in held
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"LISTEN_" not in environ
