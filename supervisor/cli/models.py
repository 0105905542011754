"""`models`: lists the served models. Its subcommands are about files (`model_folder.py`)."""

import json

import click

from supervisor.cli.model_folder import inspect_command, remove_command
from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options


@click.group(
    "models", invoke_without_command=True, short_help="The served models; inspect and rm for files."
)
@click.pass_context
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@setting_options(["runtime_dir"])
def command(ctx: click.Context, as_json: bool, runtime_dir: str | None) -> None:
    """List the models that the running front serves.

    A request selects a model by this name in its `model` field.
    """
    if ctx.invoked_subcommand is not None:
        return
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


command.add_command(inspect_command)
command.add_command(remove_command)
