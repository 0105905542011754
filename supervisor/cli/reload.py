"""`reload`: reads the configuration again and applies it while streams go on."""

from collections.abc import Mapping
from typing import Any

import click

from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options, show

_EFFECTS = {"now": "", "swap": ", by new workers"}


@click.command("reload", short_help="Apply the changed configuration; no stream is dropped.")
@click.option("--dry-run", is_flag=True, help="only show what would change")
@setting_options(["runtime_dir"])
def command(dry_run: bool, runtime_dir: str | None) -> None:
    """Read the configuration again and apply it; no stream is dropped.

    The file is read again, with the flags and variables of the running front. It is applied as a
    whole or not at all. What needs another worker gets one as `swap` does. SIGHUP, a change of the
    file and `POST /admin/reload` do the same. The exit code is 2 for a faulty configuration, 5 if a
    change needs `upgrade`, or `stop` and `start`.
    """
    from gpufc.errors import ConfigError, InvalidConfiguration
    from supervisor.cli.replacement_view import Failed, show_all
    from supervisor.control.client import ControlClient, Refused

    client = ControlClient(find(runtime_dir).control_socket)
    try:
        ready, done = show_all(client.reload(dry_run), "reload")
    except Failed as err:
        is_faulty = err.code == InvalidConfiguration.code
        raise (ConfigError if is_faulty else Refused)(str(err)) from None
    for change in done["changes"]:
        click.echo(_line(change))
    for one in ready:
        click.echo(f"{one['worker']} is ready: pid {one['pid']}, epoch {one['epoch']}")
    if not done["changes"]:
        click.echo("nothing has changed")
    elif dry_run:
        click.echo("nothing was applied; without --dry-run it would be")


def _line(change: Mapping[str, Any]) -> str:
    table = f" [{change['model']}]" if change["model"] else ""
    effect = _EFFECTS.get(change["takes_effect"], "")
    values = f"{show(change['before'])} → {show(change['after'])}"
    return f"{change['key']}{table}: {values} ({change['source']}{effect})"
