"""`load`: puts a model into memory before a request asks for it."""

import click

from gpufc.errors import StartError
from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options


@click.command("load")
@click.argument("model")
@setting_options(["runtime_dir"])
def command(model: str, runtime_dir: str | None) -> None:
    """Load MODEL before a request asks for it.

    Models that have not been used for the longest time make room for it, unless they are busy or
    pinned. The exit code is 3 if it cannot be loaded.
    """
    from supervisor.cli.replacement_view import Failed, show
    from supervisor.control.client import ControlClient

    client = ControlClient(find(runtime_dir).control_socket)
    try:
        show(client.load(model), "load")
    except Failed as err:
        raise StartError(str(err)) from None
    click.echo(f"{model} is in memory")
