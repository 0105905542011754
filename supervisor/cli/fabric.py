"""`fabric`: the GPUFabric network of the running front."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from gpufc.errors import ConfigError
from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options

if TYPE_CHECKING:
    from supervisor.control.client import ControlClient


@click.group("fabric", short_help="The GPUFabric network: status, connect, disconnect.")
def command() -> None:
    """Show the GPUFabric network that the running front is in, leave it, or join it again.

    `start --server-addr` configures one. The exit code is 4 if no front runs.
    """


@command.command("status")
@setting_options(["runtime_dir"])
def status_command(runtime_dir: str | None) -> None:
    """Show the session, its heartbeat and its tasks."""
    network = _client(runtime_dir).status().get("network")
    if network is None:
        raise ConfigError("no network is configured: server_addr is not set, or offline is set")
    _show(network)


@command.command("connect")
@setting_options(["runtime_dir"])
def connect_command(runtime_dir: str | None) -> None:
    """Join the network again after `disconnect`.

    Returns at once; `status` shows the session.
    """
    _follow(_client(runtime_dir).network("connect"))


@command.command("disconnect")
@setting_options(["runtime_dir"])
def disconnect_command(runtime_dir: str | None) -> None:
    """Leave the network until `connect`, or until the next start.

    Its tasks end with an error that the server gets. Local requests go on.
    """
    _follow(_client(runtime_dir).network("disconnect"))


def _client(runtime_dir: str | None) -> "ControlClient":
    from supervisor.control.client import ControlClient

    return ControlClient(find(runtime_dir).control_socket)


def _follow(lines: Iterable[dict[str, Any]]) -> None:
    for line in lines:
        _show(line["network"])


def _show(network: dict[str, Any]) -> None:
    from supervisor.cli.status_view import network_lines

    for line in network_lines(network):
        click.echo(line)
