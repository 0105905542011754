"""`models`: lists the served models. Its subcommands are about files (`model_folder.py`)."""

import json
from collections.abc import Mapping
from typing import Any

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
    """List the served models, and which are in memory.

    A request selects a model by this name in its `model` field, and has it loaded. NEEDS is the
    memory that it takes, or is expected to take before it was loaded for the first time.
    """
    if ctx.invoked_subcommand is not None:
        return
    from supervisor.cli.terminal import amount, columns, table
    from supervisor.control.client import ControlClient

    status = ControlClient(find(runtime_dir).control_socket).status()
    models = status.get("models", ())
    contexts = {row["model"]: row["n_ctx"] for row in status["workers"] if row.get("n_ctx")}
    rows = [
        {
            "model": row["name"],
            "state": _state(row),
            "size": amount(row["size_bytes"]) if row["size_bytes"] else "-",
            "needs": amount(_need(row)) if _need(row) else "-",
            "context": f"{contexts[row['name']]:,}" if row["name"] in contexts else "-",
            "file": row["model_path"] or "-",
        }
        for row in models
    ]
    if as_json:
        named = [{"model": row["name"]} | row for row in models]
        click.echo(json.dumps(named, indent=2))
    elif rows:
        click.echo("\n".join(table(rows, columns(), ("needs", "size", "context"))))
    for row in models if not as_json else ():
        if row["state"] == "failed":
            click.echo(f"{row['name']}: {row['detail']}{_again(row)}", err=True)


def _state(row: Mapping[str, Any]) -> str:
    """A model's state, with how far a load is and when an idle model goes."""
    if row["state"] == "loading" and row["fraction"]:
        return f"loading {row['fraction']:.0%}"
    if row["state"] == "ready" and row["expires_in_s"] is not None:
        return f"ready, {row['expires_in_s']:.0f} s"
    return str(row["state"])


def _need(row: Mapping[str, Any]) -> int:
    return int(row["host_bytes"] + row["mapped_bytes"] + row["device_bytes"])


def _again(row: Mapping[str, Any]) -> str:
    seconds = row["retry_after_s"]
    return "" if seconds is None else f"; it may be tried again in {seconds:.0f} s"


command.add_command(inspect_command)
command.add_command(remove_command)
