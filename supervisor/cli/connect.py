"""`connect`: the configuration that a client needs to use this service."""

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options

if TYPE_CHECKING:
    from supervisor.cli.clients.form import Configuration, Served

API_KEY = "GPUFC_API_KEY"
ON_DEMAND = frozenset({"unloaded", "waiting"})
"""States of a model that the next request loads. Its context is known from the configuration."""
NO_KEY = "none"
"""A service without keys takes any; most clients do not start without one."""


@click.command("connect")
@click.argument("client", required=False)
@click.option("--write", is_flag=True, help="write the client's file, keeping a backup of it")
@click.option("--model", metavar="NAME", help="model to prefer [default: the first one served]")
@setting_options(["runtime_dir"])
def command(client: str | None, write: bool, model: str | None, runtime_dir: str | None) -> None:
    """Print what a client needs to use the running front.

    Without CLIENT, lists the clients. If the service needs a key, set it in GPUFC_API_KEY.
    """
    from supervisor.cli.clients.form import JsonFile, TextFile
    from supervisor.cli.clients.forms import CLIENTS
    from supervisor.cli.clients.written import write as write_file
    from supervisor.control.client import ControlClient

    if client is None:
        width = max(map(len, CLIENTS))
        for name, each in CLIENTS.items():
            click.echo(f"{name:<{width}}  {each.title}")
        return
    if client not in CLIENTS:
        from gpufc.settings import closest

        close = closest(client, CLIENTS)
        hint = f"did you mean {close}?" if close else f"there are {', '.join(CLIENTS)}"
        raise click.UsageError(f"no client {client!r} is known; {hint}")
    folder = find(runtime_dir)
    served = _served(ControlClient(folder.control_socket).status(), model, folder.command("status"))
    wanted = CLIENTS[client]
    configuration = wanted.configure(served)
    if write and isinstance(configuration, JsonFile | TextFile):
        path, backup = write_file(Path.home(), configuration)
        click.echo(f"wrote {path}" + (f"; the file before is {backup}" if backup else ""))
    elif write:
        raise click.UsageError(f"{wanted.title} has no file that can be written; see without it")
    else:
        click.echo(_shown(configuration))
    for step in wanted.steps:
        click.echo(f"then: {step.format(key=shlex.quote(served.key))}", err=True)


def _served(status: dict[str, Any], model: str | None, how_to_see: str) -> "Served":
    from supervisor.cli.clients.form import Served
    from supervisor.control.client import NotRunning

    addresses = status["front"]["addresses"]
    rows = status.get("models", ())
    unloaded = {row["name"]: row["n_ctx"] for row in rows if row["state"] in ON_DEMAND}
    contexts = {row["model"]: int(row.get("n_ctx") or 0) for row in status["workers"]} | unloaded
    if not addresses or not all(contexts.values()) or not contexts:
        raise NotRunning(f"no model is loaded yet; `{how_to_see}` shows why")
    if model is not None and model not in contexts:
        raise click.UsageError(f"{model!r} is not served; there is {', '.join(contexts)}")
    first = model or next(iter(contexts))
    ordered = {first: contexts[first], **contexts}
    return Served(addresses[0], ordered, os.environ.get(API_KEY) or NO_KEY)


def _shown(configuration: "Configuration") -> str:
    from supervisor.cli.clients.form import JsonFile, Shown, TextFile, Variables

    match configuration:
        case Variables(values):
            return "\n".join(f"export {name}={shlex.quote(text)}" for name, text in values.items())
        case JsonFile(path, members):
            return f"# ~/{path}, merged into what is there\n{json.dumps(members, indent=2)}"
        case TextFile(path, text):
            return f"# ~/{path}\n{text}".rstrip()
        case Shown(path, text):
            return f"# ~/{path}, added by hand\n{text}".rstrip()
