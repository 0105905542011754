"""`config`: what is configured, and whether it would do."""

import json
from typing import Any

import click

from supervisor.cli.options import config_option, resolve, setting_options, show
from supervisor.cli.options import runtime_dir as find


@click.group("config", short_help="Show the configuration, or check it.")
def command() -> None:
    """Look at the configuration: effective values, and whether they would do.

    A flag beats a variable beats the TOML file beats the default. Every key has the same name in
    the file (`n_ctx`) and in the environment (`GPUFC_N_CTX`).
    """


@command.command("show")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@click.option("--running", is_flag=True, help="what the running front was started with")
@config_option
@setting_options()
def show_command(as_json: bool, running: bool, config_file: str | None, **flags: Any) -> None:
    """Print every key with its effective value and where that came from.

    Takes the same options as `start`, to see what it would run with. The output is a TOML file.
    """
    rows = _running(flags) if running else _effective(flags, config_file)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    entries = [(f"{row['key']} = {_toml(row['value'])}", row) for row in rows]
    width = min(60, max(len(text) for text, _ in entries))
    for text, row in entries:
        prefix = "# " if row["value"] is None else ""
        click.echo(f"{(prefix + text).ljust(width + 2)}  # {row['source']}")


@command.command("check")
@config_option
@setting_options()
def check_command(config_file: str | None, **flags: Any) -> None:
    """Check the configuration as `start` would, without starting anything.

    Takes the same options as `start`. The exit code is 2 if something is wrong. `doctor` also
    looks into the model file and at the machine.
    """
    from supervisor.cli import preflight

    plan = preflight.check_configuration(resolve(flags, config_file))
    for note in plan.notes:
        click.echo(note, err=True)
    click.echo(f"fine: would serve {plan.config.model.model_path or 'the fake engine'}")


def _effective(flags: dict[str, Any], config_file: str | None) -> list[dict[str, Any]]:
    return [
        {"key": value.key.name, "value": value.value, "source": value.source}
        for value in resolve(flags, config_file).values
    ]


def _running(flags: dict[str, Any]) -> list[dict[str, Any]]:
    from supervisor.control.client import ControlClient

    return ControlClient(find(flags["runtime_dir"]).control_socket).config()


def _toml(value: Any) -> str:
    """A value as TOML writes it. JSON's strings are TOML's, but for DEL, which no key holds."""
    if value is None:
        return '""'
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else show(value)
