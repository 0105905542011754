"""`start --detach`: runs the same command in a session of its own and waits until it is ready."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from gpufc.config import Config
from gpufc.errors import ConfigError, StartError
from supervisor.cli import lingering
from supervisor.cli.errors import USAGE
from supervisor.cli.preflight import asked_contexts
from supervisor.cli.terminal import Progress
from supervisor.cli.welcome import show_loading, welcome
from supervisor.control.client import ControlClient, NotRunning
from supervisor.runtime_dir import RuntimeDir

OUTPUT_NAME = "start.out"
POLL_S = 0.1

Status = dict[str, Any]


def start_detached(config: Config, args: Sequence[str], variables: Mapping[str, str]) -> None:
    """Start a front that outlives this process and its terminal. Returns when the front is ready.

    `variables` are added to its environment.

    Raises `StartError` or `ConfigError` with the front's own reason.
    """
    folder = RuntimeDir.find(config.server.runtime_dir)
    log = _log_path(folder)
    with open(log, "wb", opener=_private) as output:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "supervisor.cli", "start", *args],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=_environment() | dict(variables),
        )
    try:
        status = _wait_ready(child, ControlClient(folder.control_socket), log)
    except KeyboardInterrupt:
        child.send_signal(signal.SIGTERM)
        raise
    for line in welcome(status, asked_contexts(config), folder):
        click.echo(line)
    click.echo(f"It runs in the background: pid {child.pid}, log {folder.logs / 'front.log'}")
    click.echo(f"`{folder.command('logs -f')}` follows it, `{folder.command('stop')}` ends it.")
    if warning := lingering.note(folder.path, os.environ):
        click.echo(f"warning: {warning}", err=True)
    child.returncode = 0  # the front outlives this process: no ResourceWarning about that


def _wait_ready(child: subprocess.Popen[bytes], client: ControlClient, log: Path) -> Status:
    progress = Progress("loading the model")
    try:
        while True:
            code = child.poll()
            if code is not None:
                raise _failure(code, log)
            status = _status(client, child.pid)
            if status is not None and status["front"]["condition"]["status"] == "ok":
                return status
            if status is not None:
                show_loading(progress, status)
            time.sleep(POLL_S)
    finally:
        progress.end()


def _status(client: ControlClient, pid: int) -> Status | None:
    """The child's status; None while the child has no control socket, or another front still has
    it."""
    try:
        status = client.status()
    except NotRunning:
        return None
    return status if status["front"]["pid"] == pid else None


def _failure(code: int, log: Path) -> StartError | ConfigError:
    """The error of the last `error:` line in the child's output."""
    reasons = [
        line.removeprefix("error:").strip()
        for line in log.read_text("utf-8", "replace").splitlines()
        if line.startswith("error:")
    ]
    reason = reasons[-1] if reasons else f"it ended with code {code}; its output is in {log}"
    return ConfigError(reason) if code == USAGE else StartError(reason)


def _log_path(folder: RuntimeDir) -> Path:
    """The file for the child's output. Makes and checks the runtime folder as the front does."""
    RuntimeDir.acquire(str(folder.path)).cleanup()
    return folder.logs / OUTPUT_NAME


def _private(path: str, flags: int) -> int:
    """An opener for `open`: the file is private, also if it existed with another mode.

    The child appends, so that the file can be emptied while it writes."""
    fd = os.open(path, flags | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.fchmod(fd, 0o600)
    return fd


def _environment() -> dict[str, str]:
    """This environment, with this package's folder in PYTHONPATH: `-P` leaves out the current
    one."""
    import gpufc

    root = str(Path(gpufc.__file__).parent.parent)
    known = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, known)))}
