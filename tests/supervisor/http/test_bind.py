"""Taking the port: the operator's message if it is not available."""

import os
import re
import socket
import subprocess
import sys

import pytest

from gpufc.errors import ConfigError, StartError
from supervisor.cli import preflight
from supervisor.http.edge.server import bind, urls


def test_a_taken_port_is_one_line_with_a_way_out() -> None:
    (held,) = bind("127.0.0.1", 0)
    port = held.getsockname()[1]
    with pytest.raises(StartError, match=f"port {port} on 127.0.0.1 is taken; .*--port"):
        bind("127.0.0.1", port)
    held.close()


def test_an_address_that_is_not_ours_is_one_line() -> None:
    with pytest.raises(StartError, match=r"cannot listen on 203\.0\.113\.1"):
        bind("203.0.113.1", 0)


def test_urls_are_those_a_browser_takes() -> None:
    (held,) = bind("127.0.0.1", 0)
    assert urls([held]) == [f"http://127.0.0.1:{held.getsockname()[1]}"]
    held.close()


OURS, ABSENT = "127.0.0.1", "2001:db8::1"


def answering(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Every host name means these addresses from now on."""
    v4 = [(socket.AF_INET, (name, 0)) for name in names if ":" not in name]
    v6 = [(socket.AF_INET6, (name, 0, 0, 0)) for name in names if ":" in name]
    found = [(family, socket.SOCK_STREAM, 6, "", address) for family, address in (*v6, *v4)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)


def test_an_address_that_the_machine_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, OURS, ABSENT)
    preflight.check_host("localhost", "flag --host")
    (held,) = bind("localhost", 0)
    port = held.getsockname()[1]
    assert held.getsockname()[0] == OURS
    held.close()
    preflight.check_port("localhost", port)


def test_a_host_without_any_address_of_the_machine_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answering(monkeypatch, "203.0.113.1", ABSENT)
    with pytest.raises(StartError, match="cannot listen on localhost"):
        bind("localhost", 0)
    with pytest.raises(ConfigError, match="no address of this machine"):
        preflight.check_host("localhost", "flag --host")


def test_brackets_around_an_address_are_left_out() -> None:
    (held,) = bind("[127.0.0.1]", 0)
    held.close()


LINK_LOCAL = """
from supervisor.cli import preflight
from supervisor.http.edge.server import bind, urls
preflight.check_host("fe80::5%lo", "flag --host")
(held,) = bind("fe80::5%lo", 0)
print(urls([held])[0])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a network namespace")
def test_a_link_local_address_keeps_its_scope() -> None:
    setting = "ip link set lo up && ip addr add fe80::5/64 dev lo nodad"
    said = subprocess.run(
        [
            "unshare",
            "--net",
            "sh",
            "-c",
            f'{setting} && "$@"',
            "sh",
            sys.executable,
            "-c",
            LINK_LOCAL,
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert re.fullmatch(r"http://\[fe80::5%25lo\]:\d+\n", said)
