"""Sockets that a service manager passes to the front, and notices that it gets."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpufc.errors import StartError
from supervisor import systemd

ACTIVATED = """
import os, socket, sys
sys.path.insert(0, sys.argv[1])
os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[2]))
from supervisor.http.edge.server import listeners, urls
found = listeners("127.0.0.1", 0)
print(urls(found)[0], [name for name in os.environ if name.startswith("LISTEN")])
print([os.get_inheritable(sock.fileno()) for sock in found])
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.mark.parametrize("is_ours", [True, False])
def test_given_sockets_are_used_by_the_process_that_they_are_for(
    listener: socket.socket, is_ours: bool
) -> None:
    def place() -> None:
        os.dup2(listener.fileno(), systemd.FIRST_FD)

    root = str(Path(systemd.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", ACTIVATED, root, "0" if is_ours else "1"],
        env=os.environ | {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"},
        preexec_fn=place,
        close_fds=False,
        capture_output=True,
        text=True,
        check=True,
    )
    url, left = done.stdout.splitlines()[0].split(" ", 1)
    port = listener.getsockname()[1]
    assert (url == f"http://127.0.0.1:{port}") is is_ours
    assert left == "[]"
    assert done.stdout.splitlines()[1] == "[False]"


def test_a_socket_that_does_not_listen_is_refused_with_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as idle:
        monkeypatch.setattr(systemd, "FIRST_FD", os.dup(idle.fileno()))
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
        with pytest.raises(StartError, match="no listening internet socket"):
            systemd.activated_sockets(environ)
    assert environ == {}
    os.close(systemd.FIRST_FD)


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    name = f"gpufc-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
        systemd.notify("READY=1")
        assert manager.recv(100) == b"READY=1"
    systemd.notify("STOPPING=1")  # no socket there any more
    monkeypatch.delenv("NOTIFY_SOCKET")
    systemd.notify("STOPPING=1")


def test_a_watchdog_is_fed_only_by_the_process_that_it_watches() -> None:
    environ = {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    assert systemd.watchdog_s(environ) == 30.0
    assert systemd.watchdog_s({"WATCHDOG_USEC": "1500000"}) == 1.5
    assert systemd.watchdog_s({}) is None
    assert systemd.watchdog_s({"WATCHDOG_USEC": "0"}) is None
    other = environ | {"WATCHDOG_PID": "1"}
    assert systemd.watchdog_s(other) is None
    assert systemd.watchdog_s(other, took_over=True) == 30.0


async def test_the_loop_gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        feeding = asyncio.create_task(systemd.feed_watchdog(0.03))
        loop = asyncio.get_running_loop()
        try:
            for _ in range(3):
                assert await loop.sock_recv(manager, 100) == b"WATCHDOG=1"
        finally:
            feeding.cancel()


def test_only_the_stream_that_the_variable_names_is_the_journal() -> None:
    here = os.fstat(1)
    assert systemd.writes_to_journal({"JOURNAL_STREAM": f"{here.st_dev}:{here.st_ino}"})
    assert not systemd.writes_to_journal({"JOURNAL_STREAM": f"{here.st_dev}:{here.st_ino + 1}"})
    assert not systemd.writes_to_journal({})
