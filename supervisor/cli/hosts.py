"""`hosts`: the machines that run workers for the running front."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpufc.errors import ConfigError
from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options

if TYPE_CHECKING:
    from supervisor.control.client import ControlClient


@click.group("hosts", short_help="Machines that run workers: list, invite, drain, forget.")
def command() -> None:
    """Show and manage the machines that run workers for the running front.

    `start` with `cluster_listen` lets machines join. The exit code is 4 if no front runs.
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@setting_options(["runtime_dir"])
def list_hosts(as_json: bool, runtime_dir: str | None) -> None:
    """List the machines, with their workers."""
    from supervisor.cli.status_view import host_lines

    rows = _client(runtime_dir).status()["hosts"]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for line in host_lines(rows) or ["no machine has joined; `hosts invite FILE` lets one join"]:
        click.echo(line)


@command.command("invite", short_help="Write a join file for a machine.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--hosts", "n_hosts", metavar="N", type=click.IntRange(1, 1_000_000),
    default=1, show_default=True, help="machines that may join by the file",
)  # fmt: skip
@click.option(
    "--lifetime", "hours", metavar="HOURS", type=click.IntRange(0, 87_600),
    default=1, show_default=True, help="time in which they may join, 0 for no end",
)  # fmt: skip
@setting_options(["runtime_dir"])
def invite(file: Path, n_hosts: int, hours: int, runtime_dir: str | None) -> None:
    """Write a join FILE (mode 0600), by which a machine may join.

    There, `gpufc-supervisor host --join-file FILE` runs the workers. It comes back by its own key,
    without the file, unless it is away for a week.
    """
    from gpufc import files

    content = _client(runtime_dir).invite_hosts(n_hosts, hours * 3600.0 if hours else None)
    try:
        files.replace(file, json.dumps(content, indent=2).encode() + b"\n")
    except OSError as err:
        raise ConfigError(f"{file} cannot be written: {err.strerror or err}") from err
    click.echo(f"wrote {file}; it is a secret: copy it to the machine, and delete it here")


@command.command("drain", short_help="Move a machine's workers elsewhere.")
@click.argument("machine")
@click.option("--undo", is_flag=True, help="allow it workers again")
@setting_options(["runtime_dir"])
def drain(machine: str, undo: bool, runtime_dir: str | None) -> None:
    """Move MACHINE's workers to other machines. Their streams go on there.

    Without room elsewhere, streams wait until there is some.
    """
    from supervisor.cli.replacement_view import Failed, show
    from supervisor.control.client import Refused

    try:
        show(_client(runtime_dir).drain_host(machine, undo), "drain")
    except Failed as err:
        raise Refused(str(err)) from None
    click.echo(f"{machine} gets workers again" if undo else f"{machine} is drained")


@command.command("forget", short_help="Turn a machine away from now on.")
@click.argument("machine")
@setting_options(["runtime_dir"])
def forget(machine: str, runtime_dir: str | None) -> None:
    """Turn MACHINE away from now on. Streams of its workers go on elsewhere."""
    _client(runtime_dir).forget_host(machine)
    click.echo(f"{machine} is forgotten; it needs another join file to join again")


def _client(runtime_dir: str | None) -> "ControlClient":
    """The running front's. Raises `ConfigError` for one without a cluster."""
    from supervisor.control.client import ControlClient

    client = ControlClient(find(runtime_dir).control_socket)
    if client.status().get("hosts") is None:
        raise ConfigError("no machine can join: start the front with cluster_listen = HOST:PORT")
    return client
