"""`drain`: lets a front's requests end and refuses new ones; the front goes on."""

import time

import click

from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options


@click.command("drain", short_help="Refuse new requests; running ones end, the front stays.")
@click.option("--wait", is_flag=True, help="return when no request is left")
@click.option(
    "--timeout", type=click.FloatRange(min=0.0), metavar="S", help="wait for at most S seconds"
)
@click.option(
    "--lead",
    type=click.FloatRange(0.0, 3600.0),
    default=0.0,
    metavar="S",
    help="take requests for S more seconds, while /readyz says 503 already",
)
@click.option("--undo", is_flag=True, help="take requests again")
@setting_options(["runtime_dir"])
def command(
    wait: bool, timeout: float | None, lead: float, undo: bool, runtime_dir: str | None
) -> None:
    """Take the front out of service before it is stopped.

    /readyz says 503 from now on, so that balancers choose another front. New requests are refused
    with a 503, accepted ones end. The front and its workers stay, until `stop` or `--undo`. The
    exit code is 5 if requests are left after the time to wait.
    """
    from supervisor.cli.stop import left
    from supervisor.cli.terminal import Progress
    from supervisor.control.client import ControlClient, Refused

    if undo and (wait or lead or timeout is not None):
        raise click.UsageError("--undo goes with no other option")
    client = ControlClient(find(runtime_dir).control_socket)
    if undo:
        client.undrain()
        click.echo("the front takes requests")
        return
    progress = Progress("draining")
    ends_at = None if timeout is None else time.monotonic() + timeout
    waits = wait or timeout is not None
    remaining, n_left = "", 0
    for event in client.drain(lead, waits):
        n_left = event["running"] + event["waiting"]
        remaining = left(event["running"], event["waiting"])
        if event["event"] == "done":
            break
        if n_left and ends_at is not None and time.monotonic() >= ends_at:
            progress.end()
            raise Refused(f"after {timeout:g} s: {remaining}")
        progress.note(remaining, timeout)
    if waits and n_left:
        progress.end()
        raise Refused(f"the front ends before it is drained: {remaining}")
    progress.end(f"drained: {remaining}" if waits else f"drains: {remaining}")
