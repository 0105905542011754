"""`unload`: takes a model out of memory."""

import click

from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options


@click.command("unload")
@click.argument("model")
@setting_options(["runtime_dir"])
def command(model: str, runtime_dir: str | None) -> None:
    """Unload MODEL as soon as it is idle. The next request loads it again.

    Running requests end first, and requests that come meanwhile wait for the next load.
    """
    from supervisor.cli.replacement_view import Failed, show
    from supervisor.control.client import ControlClient, Refused

    client = ControlClient(find(runtime_dir).control_socket)
    try:
        show(client.unload(model), "unload")
    except Failed as err:
        raise Refused(str(err)) from None
    click.echo(f"{model} is unloaded")
