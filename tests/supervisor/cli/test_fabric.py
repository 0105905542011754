"""`fabric`: the network of the running front, on a terminal."""

import json

import pytest
from click.testing import CliRunner, Result

from gpufc.errors import ConfigError
from gpufc.settings import HIDDEN, resolve
from supervisor.cli import cli
from supervisor.cli.start import _arguments, _secrets
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


SECRET = "00112233445566778899aabbccddeeff"
FAKE = {"GPUFC_BACKEND": "fake"}


def config(*words: str, **variables: str) -> Result:
    return CliRunner().invoke(cli, ["config", *words], env=FAKE | variables)


@pytest.mark.parametrize(
    ("address", "secret", "said"),
    [
        ("control.example", None, "client_id_file"),
        ("control.example", SECRET, "control_tls = true"),
        ("127.0.0.1", "0011", "32 hex digits"),
    ],
)
def test_a_network_that_cannot_be_joined_is_a_mistake_before_the_start(
    address: str, secret: str | None, said: str
) -> None:
    given = {} if secret is None else {"GPUFC_CLIENT_ID": secret}
    result = config("check", "--server-addr", address, **given)
    assert result.exit_code == 2
    assert said in result.stderr
    assert secret is None or secret not in result.output


def test_a_network_that_can_be_joined_is_fine() -> None:
    assert config("check", "--server-addr", "::1", GPUFC_CLIENT_ID=SECRET).exit_code == 0


def test_the_client_id_is_never_shown() -> None:
    shown = config("show", "--json", GPUFC_CLIENT_ID=SECRET)
    rows = {row["key"]: row["value"] for row in json.loads(shown.stdout)}
    assert rows["client_id"] == HIDDEN
    assert SECRET not in config("show", GPUFC_CLIENT_ID=SECRET).output
    with pytest.raises(ConfigError) as caught:
        resolve(flags={"client_id": [SECRET]}, environ={}, file=None)
    assert SECRET not in str(caught.value)


def test_a_start_in_the_background_has_no_secret_in_its_arguments() -> None:
    flags = {"port": "1", "client_id": SECRET, "server_addr": None}
    assert _arguments(flags, "a.toml") == ["--port=1", "--config=a.toml"]
    assert _secrets(flags) == {"GPUFC_CLIENT_ID": SECRET}


def test_the_port_has_the_name_of_gpufabrics_client_too() -> None:
    rows = json.loads(config("show", "--json", "--local-port", "1234").stdout)
    assert next(row["value"] for row in rows if row["key"] == "port") == 1234
