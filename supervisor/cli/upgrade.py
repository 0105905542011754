"""`upgrade`: replaces the running front while clients and workers stay."""

import os

import click

from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options


@click.command("upgrade", short_help="Replace the running front by the installed release.")
@setting_options(["runtime_dir"])
def command(runtime_dir: str | None) -> None:
    """Replace the running front by a new one of the installed release.

    The new front takes over the listening sockets and the running workers: no request is refused,
    no stream is lost, no model is loaded again. It reads the configuration anew; flags stay as
    given at start. Returns when the old front's requests have ended. If the new front cannot start,
    the old one keeps serving and the exit code is 5.
    """
    from supervisor.cli.terminal import Progress
    from supervisor.control.client import ControlClient, NotRunning, Refused

    folder = find(runtime_dir)
    progress = Progress("upgrading")
    pid: int | None = None
    try:
        for event in ControlClient(folder.control_socket).upgrade():
            match event["event"]:
                case "failed":
                    raise Refused(f"{event['message']}; the old front keeps serving")
                case "serving" | "done":
                    pid = event["pid"]
                case _:
                    progress.note(event["message"])
    except NotRunning:
        if pid is None:
            raise
    finally:
        progress.end()
    click.echo(f"upgraded: the front is pid {pid} now")
    if os.isatty(1):
        click.echo(f"It runs in the background; `{folder.command('stop')}` ends it.")
