"""`install-service`: writes systemd units for this installation."""

import grp
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click

from supervisor.cli.options import config_option, setting_options

if TYPE_CHECKING:
    from supervisor.cli.service_unit import Place

SYSTEM_FOLDER = Path("/etc/systemd/system")
GPU_GROUPS = ("video", "render")

STARTER = """\
# The configuration of the gpufc service. `gpufc-supervisor config show --config {file}` prints all
# keys; gpufc/CONFIGURATION.md describes them. A change of this file is applied while it runs.

# model_path = "/srv/models/your-model.gguf"      # without it: the demo model
"""


@click.command("install-service", short_help="Write systemd units for this installation.")
@click.option("--user", is_flag=True, help="a service of this user rather than of the machine")
@click.option("--socket", is_flag=True, help="let systemd hold the listening socket, too")
@click.option("--print", "only_print", is_flag=True, help="print the units and write nothing")
@click.option("--force", is_flag=True, help="overwrite units that differ")
@config_option
@setting_options(["runtime_dir"])
def command(
    user: bool,
    socket: bool,
    only_print: bool,
    force: bool,
    config_file: str | None,
    runtime_dir: str | None,
) -> None:
    """Write systemd units that run this installation, and say how to start them.

    Nothing is enabled or started. A system service needs root; it runs as a user of its own, which
    must be able to read the model. The configuration is /etc/gpufc/gpufc.toml, or
    ~/.config/gpufc/gpufc.toml with --user; an absent one is made, with comments only. Without
    --runtime-dir the service gets one of systemd's folders.
    """
    from gpufc.errors import StartError
    from supervisor.cli import service_unit

    config = _config_file(user, config_file)
    place = _place(user, config, runtime_dir)
    units = {service_unit.SERVICE: service_unit.service(place)}
    if socket:
        units[service_unit.SOCKET] = service_unit.socket(place, *_address(config))
    if only_print:
        click.echo("\n".join(units.values()), nl=False)
        return
    folder = _user_folder() if user else SYSTEM_FOLDER
    try:
        _write(folder, units, force=force)
        _write_starter(config)
    except PermissionError as err:
        raise StartError(
            f"{err.filename} cannot be written: run this as root, or with --user for a service of"
            " your own"
        ) from err
    for name in units:
        click.echo(f"wrote {folder / name}")
    for line in _next_steps(user, list(units), place.runtime_dir):
        click.echo(line)


def _config_file(user: bool, given: str | None) -> Path:
    if given is not None:
        return Path(given).expanduser().absolute()
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "gpufc/gpufc.toml" if user else Path("/etc/gpufc/gpufc.toml")


def _place(user: bool, config: Path, runtime_dir: str | None) -> "Place":
    from gpufc.config import ServerConfig
    from supervisor import program
    from supervisor.cli.options import resolve
    from supervisor.cli.service_unit import STATE, Place

    server = resolve({}, str(config)).config.server if config.is_file() else ServerConfig()
    return Place(
        program=program.absolute(),
        config=str(config),
        runtime_dir=_absolute(runtime_dir) or ("%t/gpufc" if user else STATE),
        user=user,
        stop_s=server.shutdown_timeout_s,
        groups=() if user else tuple(filter(_exists, GPU_GROUPS)),
    )


def _absolute(folder: str | None) -> str | None:
    return None if folder is None else str(Path(folder).expanduser().absolute())


def _address(config: Path) -> tuple[str, int]:
    """What the configuration would listen on."""
    from gpufc.config import ServerConfig
    from supervisor.cli.options import resolve

    server = resolve({}, str(config)).config.server if config.is_file() else ServerConfig()
    return server.host, server.port


def _exists(group: str) -> bool:
    try:
        grp.getgrnam(group)
    except KeyError:
        return False
    return True


def _user_folder() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "systemd/user"


def _write(folder: Path, units: dict[str, str], *, force: bool) -> None:
    """Raises `StartError` for a unit that someone has changed, before any is written."""
    from gpufc.errors import StartError

    for name, text in units.items():
        path = folder / name
        if path.exists() and path.read_text() != text and not force:
            raise StartError(
                f"{path} exists and differs; --force overwrites it, --print shows the new one"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in units.items():
        (folder / name).write_text(text)


def _write_starter(config: Path) -> None:
    if not config.exists():
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(STARTER.format(file=config))
        click.echo(f"wrote {config}")


def _next_steps(user: bool, units: list[str], runtime_dir: str) -> list[str]:
    from supervisor import program
    from supervisor.cli.service_unit import STATE

    # root reaches the state folder by systemd's link to it, a user by the default
    folders = {STATE: Path("/var/lib/gpufc"), "%t/gpufc": None}
    status = program.command("status", folders.get(runtime_dir, Path(runtime_dir)))
    scope = " --user" if user else ""
    steps = [
        "Start it, now and at each boot:",
        f"  systemctl{scope} daemon-reload",
        f"  systemctl{scope} enable --now {' '.join(reversed(units))}",
        f"  journalctl{scope} -u gpufc -f        # and `systemctl{scope} reload gpufc`",
        f"  {status}",
    ]
    if user:
        steps.append("  loginctl enable-linger           # so that it runs without a login")
    if fault := _fault(units, user):
        steps.append(f"systemd-analyze says: {fault}")
    return steps


def _fault(units: list[str], user: bool) -> str:
    """systemd's own opinion of the units; empty without any."""
    analyze = shutil.which("systemd-analyze")
    folder = _user_folder() if user else SYSTEM_FOLDER
    if analyze is None:
        return ""
    scope = ["--user"] if user else []
    try:
        done = subprocess.run(
            [analyze, *scope, "verify", *(str(folder / name) for name in units)],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stderr.strip() if done.returncode else ""
