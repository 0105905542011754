"""`swap`: replaces the model behind a served name while clients stay."""

import click

from supervisor.cli.options import resolve, setting_options
from supervisor.cli.options import runtime_dir as find


@click.command("swap", short_help="Serve another model from now on; no request fails.")
@click.argument("model_path")
@click.option("--name", help="served model to replace; with only one, a further name for it")
@click.option("--n-ctx", type=click.IntRange(16, 16_777_216), help="tokens a request may use")
@click.option("--n-gpu-layers", type=click.IntRange(0, 100_000), help="layers on the GPU")
@click.option(
    "--canary",
    type=click.FloatRange(0.0, 1.0, min_open=True),
    metavar="SHARE",
    help="first give it this share of new requests, and compare its errors and times",
)
@click.option(
    "--canary-requests",
    type=click.IntRange(1, 1_000_000),
    default=50,
    show_default=True,
    help="requests that have to end well before it takes over",
)
@click.option(
    "--canary-s",
    type=click.FloatRange(0.0, 604_800.0),
    default=60.0,
    show_default=True,
    help="least seconds before it takes over",
)
@setting_options(["runtime_dir"])
def command(
    model_path: str,
    name: str | None,
    n_ctx: int | None,
    n_gpu_layers: int | None,
    canary: float | None,
    canary_requests: int,
    canary_s: float,
    runtime_dir: str | None,
) -> None:
    """Serve the model in MODEL_PATH from now on; no request fails.

    The new model is loaded and tried with a short generation before it takes over. Running requests
    end on the old model. Waiting and later requests get the new one. If the new model cannot be
    used, the old one keeps serving and the exit code is 5. So it is if a canary is rolled back.
    """
    from supervisor.cli.model_file import check, located
    from supervisor.cli.replacement_view import Failed, show, template_notes
    from supervisor.control.client import ControlClient, Refused

    downloads = resolve({}).config.downloads_folder
    path = check(located(model_path, downloads), "MODEL_PATH")
    rules = None
    if canary is not None:
        rules = {"share": canary, "n_enough": canary_requests, "least_s": canary_s}
    client = ControlClient(find(runtime_dir).control_socket)
    try:
        ready = show(client.swap(str(path), name, n_ctx, n_gpu_layers, rules), "swap")
    except Failed as err:
        raise Refused(str(err)) from None
    except KeyboardInterrupt:
        click.echo("The swap goes on; `status` shows it.", err=True)
        raise
    for one in ready:
        click.echo(f"{one['worker']} serves {path.name}: pid {one['pid']}, epoch {one['epoch']}")
    for note in template_notes(client.status()):
        click.echo(note, err=True)
