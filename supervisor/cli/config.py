"""`config`: shows the configuration and checks it."""

import json
import re
from typing import Any

import click

from gpufc.config import DEFAULT_MODEL
from gpufc.settings import NAME, TABLES, row
from supervisor.cli.options import config_option, resolve, setting_options, show
from supervisor.cli.options import runtime_dir as find

Row = dict[str, Any]
"""A value of `settings.row`."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
"""A TOML key that needs no quotes."""


@click.group("config", short_help="Show the configuration, or check it.")
def command() -> None:
    """Show the configuration, or check it.

    A flag beats a variable beats the TOML file beats the default. A key has one name: `n_ctx` in
    the file, `GPUFC_N_CTX` in the environment.

    In the file, `[model]` holds defaults for all models and `[models.NAME]` configures one that is
    served as NAME. Flags, variables and keys outside tables mean the only model. `[fabric]` may
    hold the network's keys.
    """


@command.command("show")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@click.option("--running", is_flag=True, help="the configuration of the running front")
@config_option
@setting_options()
def show_command(as_json: bool, running: bool, config_file: str | None, **flags: Any) -> None:
    """Print every key with its effective value and source, as a TOML file.

    Takes the same options as `start`, and shows the configuration that `start` would run with.
    """
    rows = _running(flags) if running else _effective(flags, config_file)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    click.echo("\n".join(toml_lines(rows)))


@command.command("check")
@config_option
@setting_options()
def check_command(config_file: str | None, **flags: Any) -> None:
    """Check the configuration as `start` would, without starting anything.

    Takes the same options as `start`. The exit code is 2 if something is wrong. `doctor` also
    checks the inside of the model file and the machine.
    """
    from supervisor.cli import preflight

    plan = preflight.check_configuration(resolve(flags, config_file))
    for note in plan.notes:
        click.echo(note, err=True)
    click.echo(f"fine: would serve {preflight.served_files(plan.config)}")


def _effective(flags: dict[str, Any], config_file: str | None) -> list[Row]:
    return [row(value) for value in resolve(flags, config_file).values]


def _running(flags: dict[str, Any]) -> list[Row]:
    from supervisor.control.client import ControlClient

    return ControlClient(find(flags["runtime_dir"]).control_socket).config()


def toml_lines(rows: list[Row]) -> list[str]:
    """A TOML file with each value's source behind it: flat keys, then a table for each model.

    The default model's keys are flat.
    """
    width = min(60, max(len(_entry(one)) for one in rows)) + 2
    lines: dict[str | None, list[str]] = {None: []}
    for one in rows:
        table = _table(one)
        begin = [] if table is None else ["", f"[{TABLES}.{table}]"]
        lines.setdefault(table, begin).append(f"{_entry(one).ljust(width)}  # {one['source']}")
    return [line for part in lines.values() for line in part]


def _entry(row: Row) -> str:
    """`key = value`; commented out where nothing is set, and for a name that its table says."""
    text = f"{row['key']} = {_toml(row['value'])}"
    is_said = row["key"] == NAME and _table(row) is not None
    return f"# {text}" if row["value"] is None or is_said else text


def _table(row: Row) -> str | None:
    """The name of a row's table as TOML writes it; None for a flat key."""
    model = row.get("model")
    if model is None or model == DEFAULT_MODEL:
        return None
    return model if _BARE.fullmatch(model) else _toml(model)


def _toml(value: Any) -> str:
    """A value as TOML writes it. JSON's strings are TOML's, except for DEL, which no key holds."""
    if value is None:
        return '""'
    if isinstance(value, dict):
        entries = ", ".join(f"{key} = {_toml(one)}" for key, one in value.items())
        return f"{{ {entries} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else show(value)
