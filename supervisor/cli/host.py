"""`host`: run engine workers on this machine for a front on another one."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpufc.errors import ConfigError

if TYPE_CHECKING:
    from supervisor.outlet import Outlet
    from supervisor.worker_host.process import Plan

LAST_LINES_S = 1.0


@click.command("host", short_help="Run workers on this machine for a front on another one.")
@click.option(
    "--front", metavar="HOST:PORT", help="the front's address for hosts [default: the join file's]"
)
@click.option(
    "--join-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="invitation of `hosts invite`, needed once [env: GPUFC_JOIN has its text]",
)
@click.option("--name", metavar="NAME", help="this machine's name [default: its host name]")
@click.option(
    "--key-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="this host's own key, made here [default: ~/.local/state/gpufc/host.json]",
)
@click.option(
    "--runtime-dir",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="sockets and logs [default: gpufc-host in $XDG_RUNTIME_DIR or the temporary folder]",
)
@click.option(
    "--models-dir",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="models of this machine, and copies of the front's [default: that of `pull`]",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
def command(
    front: str | None,
    join_file: str | None,
    name: str | None,
    key_file: str | None,
    runtime_dir: str | None,
    models_dir: str | None,
    log_level: str,
) -> None:
    """Run workers on this machine for a front on another one.

    Dials the front until it is reached, and again whenever the connection is lost. Ctrl-C lets the
    front move its streams to other machines; the second one ends at once.
    """
    import asyncio

    import uvloop

    from supervisor.outlet import Terminal
    from supervisor.worker_host import process

    process.confine()
    plan = _plan(front, join_file, name, key_file, runtime_dir, models_dir)
    terminal = Terminal()
    log = _log_to(plan.runtime.logs, log_level)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            reason = runner.run(process.serve(plan, terminal.say))
        terminal.say(f"stopped: {reason}")
    finally:
        plan.runtime.cleanup()
        log.close(LAST_LINES_S)
        terminal.outlet.close(LAST_LINES_S)


def _plan(
    front: str | None,
    join_file: str | None,
    name: str | None,
    key_file: str | None,
    runtime_dir: str | None,
    models_dir: str | None,
) -> "Plan":
    """Everything that can be checked before anything starts. Raises `GpufcError`."""
    import socket

    from gpufc.config.downloads import default_folder
    from supervisor.cluster.join import Memory, endpoint, read_join_file
    from supervisor.runtime_dir import RuntimeDir
    from supervisor.worker_host.about import machine_name
    from supervisor.worker_host.dialer import Goal
    from supervisor.worker_host.process import Plan

    keys = Path(key_file) if key_file else _state() / "host.json"
    join = read_join_file(Path(join_file) if join_file else None, os.environ)
    memory = Memory(keys).content
    front_key = join.front_key if join else memory.front_key
    address = front or (join.front if join else memory.front)
    if not front_key or not address:
        raise ConfigError(
            "this host has joined no front yet: give it a join file (--join-file), which "
            "`gpufc-supervisor hosts invite FILE` makes at the front"
        )
    goal = Goal(endpoint(address), front_key, join.invitation() if join else None)
    runtime = RuntimeDir.acquire(runtime_dir or str(_runtime()))
    models = Path(models_dir).absolute() if models_dir else default_folder()
    return Plan(runtime, keys, machine_name(name or socket.gethostname()), goal, models)


def _runtime() -> Path:
    """Next to a front's own folder: both may run on one machine."""
    from supervisor.runtime_dir import RuntimeDir

    found = RuntimeDir.find(None).path
    return found.with_name(found.name.replace("gpufc", "gpufc-host", 1))


def _state() -> Path:
    given = os.environ.get("XDG_STATE_HOME")
    base = Path(given) if given and os.path.isabs(given) else Path.home() / ".local" / "state"
    return base / "gpufc"


def _log_to(folder: Path, level: str) -> "Outlet":
    from gpufc import logs
    from supervisor.log_rotation import LogFile
    from supervisor.outlet import Outlet, OutletHandler

    outlet = Outlet()
    file = OutletHandler(outlet, LogFile(folder / "host.log").write)
    logs.handle(level, "host", file)
    return outlet
