"""`status`: what runs and how it is doing."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options

WATCH_S = 1.0


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="the whole document, for scripts")
@click.option("--watch", "-w", is_flag=True, help="redraw every second until Ctrl-C")
@setting_options(["runtime_dir"])
def command(as_json: bool, watch: bool, runtime_dir: str | None) -> None:
    """Show the front, its workers, requests and devices.

    The exit code is 4 if nothing runs.
    """
    from supervisor.control.client import ControlClient

    client = ControlClient(find(runtime_dir).control_socket)
    if as_json:
        click.echo(json.dumps(client.status(), indent=None if watch else 2))
        while watch:
            time.sleep(WATCH_S)
            click.echo(json.dumps(client.status()))
    elif watch:
        _watch(client.status)
    else:
        _print(client.status())


def _print(document: dict[str, Any]) -> None:
    from supervisor.cli.status_view import render
    from supervisor.cli.terminal import columns

    click.echo("\n".join(render(document, columns())))


def _watch(status: Callable[[], dict[str, Any]]) -> None:
    """Redraw on a terminal; elsewhere print again and again. A front that goes away ends it."""
    from supervisor.cli.status_view import render
    from supervisor.cli.terminal import columns, full_screen, redraw

    if not sys.stdout.isatty():
        while True:
            _print(status())
            time.sleep(WATCH_S)
    with full_screen(sys.stdout):
        while True:
            lines = render(status(), columns())
            redraw(sys.stdout, [*lines, "", click.style("Ctrl-C ends this view", dim=True)])
            time.sleep(WATCH_S)
