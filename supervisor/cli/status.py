"""`status`: the state of the front, its workers, requests and devices."""

import contextlib
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
@click.option("--watch", "-w", is_flag=True, help="redraw every second until q or Ctrl-C")
@setting_options(["runtime_dir"])
def command(as_json: bool, watch: bool, runtime_dir: str | None) -> None:
    """Show the front, its workers, requests and devices.

    The exit code is 4 if no front runs.
    """
    from supervisor.control.client import ControlClient

    status = ControlClient(find(runtime_dir).control_socket).status
    if not watch:
        click.echo(json.dumps(status(), indent=2) if as_json else _text(status()))
        return
    # Ctrl-C is the way to leave an endless view
    with contextlib.suppress(KeyboardInterrupt):
        if sys.stdout.isatty() and not as_json:
            _watch(status)
        else:
            _repeat(lambda: json.dumps(status()) if as_json else _text(status()))


def _text(document: dict[str, Any]) -> str:
    from supervisor.cli.status_view import render
    from supervisor.cli.terminal import columns

    return "\n".join(render(document, columns()))


def _repeat(text: Callable[[], str]) -> None:
    """Print the status again and again, until the front ends."""
    while True:
        click.echo(text())
        time.sleep(WATCH_S)


def _watch(status: Callable[[], dict[str, Any]]) -> None:
    """Redraw the status on a terminal, until q is pressed or the front ends."""
    from supervisor.cli.status_view import render
    from supervisor.cli.terminal import columns, full_screen, input_mode, key_within, redraw

    with full_screen(sys.stdout), input_mode(echo=False, lines=False):
        while True:
            lines = render(status(), columns())
            redraw(sys.stdout, [*lines, "", click.style("q ends this view", dim=True)])
            if "q" in key_within(WATCH_S).lower():
                return
