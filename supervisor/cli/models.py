"""`models`: lists the served models."""

import json

import click

from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@setting_options(["runtime_dir"])
def command(as_json: bool, runtime_dir: str | None) -> None:
    """List the models that the running front serves.

    A request selects a model by this name in its `model` field.
    """
    from supervisor.cli.terminal import columns, table
    from supervisor.control.client import ControlClient

    status = ControlClient(find(runtime_dir).control_socket).status()
    rows = [
        {
            "model": row["model"],
            "state": row["state"],
            "context": f"{row['n_ctx']:,}" if row.get("n_ctx") else "-",
            "workers": row["name"],
            "file": row.get("model_path") or "-",
        }
        for row in status["workers"]
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif rows:
        click.echo("\n".join(table(rows, columns(), ("workers", "context"))))
