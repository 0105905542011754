"""`fabric`: the network of the running front, on a terminal."""

import pytest

from supervisor.cli.status_view import network_lines
from tests.supervisor.cli.test_replacing import run
from tests.supervisor.control.control_server import Server
from tests.supervisor.control.fake_front import network


@pytest.mark.parametrize("name", ["status", "connect", "disconnect"])
def test_a_front_without_a_network_says_so(server: Server, name: str) -> None:
    result = run(server, "fabric", name)
    assert result.exit_code == 2
    assert "no network is configured" in result.stderr


def test_status_shows_the_session_its_heartbeat_and_its_tasks(server: Server) -> None:
    front, _, _ = server
    front.network = network()
    result = run(server, "fabric", "status")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "network   online  control.example:17000 as 0011…eeff, heartbeat none yet",
        "  tasks 2 running, 1 waiting, 1,234 succeeded, 5 cancelled; 3 connections",
    ]
    assert result.stdout in run(server, "status").stdout


def test_disconnect_and_connect_show_the_state_then(server: Server) -> None:
    front, _, _ = server
    front.network = network()
    left = run(server, "fabric", "disconnect")
    assert (left.exit_code, "off" in left.stdout) == (0, True)
    again = run(server, "fabric", "connect")
    assert (again.exit_code, "connecting" in again.stdout) == (0, True)


def test_a_session_that_is_down_says_why() -> None:
    lines = network_lines(network(phase="waiting", detail="login refused: Invalid client ID"))
    assert lines[1] == "  login refused: Invalid client ID"
    assert network_lines({}) == []
