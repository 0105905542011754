"""`stop`: ends a running front."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options

if TYPE_CHECKING:
    from supervisor.control.client import ControlClient

GONE_S = 15.0


@click.command("stop")
@click.option("--now", is_flag=True, help="do not wait for running requests")
@setting_options(["runtime_dir"])
def command(now: bool, runtime_dir: str | None) -> None:
    """Stop the front and its workers.

    Running requests may end first, for at most `shutdown_timeout_s` seconds [default: 30.0] [env:
    GPUFC_SHUTDOWN_TIMEOUT_S]. New ones are refused meanwhile. Returns when the front has ended.
    """
    from supervisor.cli.terminal import Progress
    from supervisor.control.client import ControlClient, NotRunning, Refused

    folder = find(runtime_dir)
    client = ControlClient(folder.control_socket)
    pid = int(client.status()["front"]["pid"])
    limit_s = None if now else _drain_limit_s(client)
    progress = Progress("stopping")
    try:
        for event in client.stop(now):
            running, waiting = event["running"], event["waiting"]
            progress.note(left(running, waiting), limit_s if running or waiting else None)
    except NotRunning:
        pass  # the front ended while it reported: the stop is done
    if not _wait_gone(pid):
        progress.end()
        raise Refused(f"the front (pid {pid}) has not ended; look into {folder.logs}")
    progress.end(f"stopped (pid {pid})")


def _drain_limit_s(client: "ControlClient") -> float | None:
    """The drain time that the front was started with."""
    values = {row["key"]: row["value"] for row in client.config()}
    return values.get("shutdown_timeout_s")


def left(running: int, waiting: int) -> str:
    """The requests that a drain still waits for."""
    if not running and not waiting:
        return "no requests left"
    requests = "request" if running == 1 else "requests"
    return f"{running} {requests} running, {waiting} waiting"


def _wait_gone(pid: int) -> bool:
    deadline = time.monotonic() + GONE_S
    while time.monotonic() < deadline:
        if not _alive(pid):
            return True
        time.sleep(0.02)
    return False


def _alive(pid: int) -> bool:
    """Whether a process runs. A zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
    except FileNotFoundError:
        return Path("/proc").is_dir() is False and _signalled(pid)
    except ProcessLookupError:
        return False
    return not status.startswith(("Z", "X"))


def _signalled(pid: int) -> bool:
    import os

    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
