"""`restart`: replaces engine workers while the front stays."""

import click

from gpufc.errors import EngineUnavailable, StartError
from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options


@click.command("restart", short_help="Replace the engine worker; running streams go on.")
@click.argument("worker", required=False)
@click.option("--now", is_flag=True, help="kill the old worker rather than load a new one first")
@setting_options(["runtime_dir"])
def command(worker: str | None, now: bool, runtime_dir: str | None) -> None:
    """Replace the engine worker WORKER, or all one after another.

    The front accepts requests meanwhile, and running streams continue. Where memory allows, the new
    worker is loaded and tried before the old one ends. `status` names the workers. The exit code is
    3 if a new worker could not start, 5 if the worker is already being replaced.
    """
    from supervisor.cli.replacement_view import Failed, show, template_notes
    from supervisor.control.client import ControlClient, Refused

    client = ControlClient(find(runtime_dir).control_socket)
    try:
        ready = show(client.restart(worker, now), "restart")
    except Failed as err:
        raise (StartError if err.code == EngineUnavailable.code else Refused)(str(err)) from None
    except KeyboardInterrupt:
        click.echo("The restart goes on; `status` shows it.", err=True)
        raise
    for one in ready:
        click.echo(f"{one['worker']} is ready: pid {one['pid']}, epoch {one['epoch']}")
    for note in template_notes(client.status()):
        click.echo(note, err=True)
