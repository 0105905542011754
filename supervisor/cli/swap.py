"""`swap`: replaces the model behind a served name while clients stay."""

import click

from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options


@click.command("swap", short_help="Serve another model from now on; no request fails.")
@click.argument("model_path")
@click.option("--name", help="served model to replace; with only one, a further name for it")
@click.option("--n-ctx", type=click.IntRange(16, 16_777_216), help="tokens a request may use")
@click.option("--n-gpu-layers", type=click.IntRange(0, 100_000), help="layers on the GPU")
@setting_options(["runtime_dir"])
def command(
    model_path: str,
    name: str | None,
    n_ctx: int | None,
    n_gpu_layers: int | None,
    runtime_dir: str | None,
) -> None:
    """Serve the model in MODEL_PATH from now on; no request fails.

    The new model is loaded and tried with a short generation before it takes over. Running requests
    end on the old model. Waiting and later requests get the new one. If the new model cannot be
    used, the old one keeps serving and the exit code is 5.
    """
    from supervisor.cli.model_file import check
    from supervisor.cli.replacement_view import Failed, show, template_notes
    from supervisor.control.client import ControlClient, Refused

    path = check(model_path, "MODEL_PATH")
    client = ControlClient(find(runtime_dir).control_socket)
    try:
        ready = show(client.swap(str(path), name, n_ctx, n_gpu_layers), "swap")
    except Failed as err:
        raise Refused(str(err)) from None
    except KeyboardInterrupt:
        click.echo("The swap goes on; `status` shows it.", err=True)
        raise
    for one in ready:
        click.echo(f"{one['worker']} serves {path.name}: pid {one['pid']}, epoch {one['epoch']}")
    for note in template_notes(client.status()):
        click.echo(note, err=True)
