"""`upgrade`: replaces the running front while clients and workers stay."""

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

import click

from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options

if TYPE_CHECKING:
    from supervisor.cli.terminal import Progress
    from supervisor.control.client import ControlClient
    from supervisor.runtime_dir import RuntimeDir

TAKEN_S = 30.0
"""A new front whose old one has died serves within this time: workers have 20 s to attach."""

LOOK_S = 0.1


@click.command("upgrade", short_help="Replace the running front by the installed release.")
@setting_options(["runtime_dir"])
def command(runtime_dir: str | None) -> None:
    """Replace the running front by a new one of the installed release.

    The new front takes over the listening sockets and the running workers: no request is refused,
    no stream is lost, no model is loaded again. It reads the configuration anew; flags stay as
    given at start. Returns when the new front serves; the old one ends after its running requests.
    If the new front cannot start, the old one keeps serving and the exit code is 5.
    """
    from supervisor.cli.terminal import Progress
    from supervisor.control.client import ControlClient

    folder = find(runtime_dir)
    client = ControlClient(folder.control_socket)
    old = int(client.status()["front"]["pid"])
    progress = Progress("upgrading")
    try:
        pid, note = _upgraded(client, folder, old, progress)
    finally:
        progress.end()
    click.echo(f"upgraded: the front is pid {pid} now{note}")
    if os.isatty(1):
        click.echo(f"It runs in the background; `{folder.command('stop')}` ends it.")


def _upgraded(
    client: "ControlClient", folder: "RuntimeDir", old: int, progress: "Progress"
) -> tuple[int, str]:
    """The pid of the new front that serves, and what is left of the old one, for the end of a line.

    Raises `Refused` if the old front serves on, and `NotRunning` if none does.
    """
    from supervisor.control.client import NotRunning, Refused

    last: dict[str, Any] = {}
    with contextlib.suppress(NotRunning):  # the old front may die while it reports
        for last in client.upgrade():
            if last["event"] in {"serving", "failed"}:
                break
            progress.note(last["message"])
    if last.get("event") == "serving":
        return last["pid"], _left(old, last.get("draining", 0))
    if last.get("event") == "failed":
        raise (Refused if last.get("serves", True) else NotRunning)(last["message"])
    pid = _survivor(client, folder, old)
    if pid is None:
        raise NotRunning(
            f"the front (pid {old}) ended during the upgrade, and no new one serves;"
            f" `{folder.command('logs')}` may say why, `{folder.command('start')}` starts it"
        )
    return pid, f"; the old one (pid {old}) died, and its running requests with it"


def _left(old: int, n_draining: int) -> str:
    if not n_draining:
        return ""
    requests = "request" if n_draining == 1 else "requests"
    return f"; the old one (pid {old}) still answers {n_draining} {requests}, then ends"


def _survivor(client: "ControlClient", folder: "RuntimeDir", old: int) -> int | None:
    """The pid of a front that serves though the old one has died; None if there is none."""
    from supervisor.control.client import NotRunning

    deadline = time.monotonic() + TAKEN_S
    while folder.front_pid() is not None and time.monotonic() < deadline:
        try:
            pid = int(client.status()["front"]["pid"])
        except NotRunning:
            pid = old
        if pid != old:
            return pid
        time.sleep(LOOK_S)
    return None
