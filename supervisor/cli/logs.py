"""`logs`: the logs of the front and its workers, joined."""

import re
import sys
from collections.abc import Callable, Iterable

import click

from gpufc.printable import printable
from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options
from supervisor.log_files import FRONT

_COLOURS = ("cyan", "green", "magenta", "blue", "yellow")
_ROLE = re.compile(r"(?P<head>\S+ [A-Z]+ +)(?P<role>\S+) ")
"""The process as the line names it: `front`, or worker and epoch, such as `default-0.3`."""
_LOUD = {"ERROR": "red", "CRITICAL": "red", "WARNING": "yellow"}


@click.command("logs", short_help="Print the logs of the front and its workers, joined.")
@click.argument("worker", required=False)
@click.option("--follow", "-f", is_flag=True, help="go on with new lines")
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    metavar="N",
    help="begin with the last N lines of each log",
)
@setting_options(["runtime_dir"])
def command(worker: str | None, follow: bool, lines: int, runtime_dir: str | None) -> None:
    """Print the logs of the front and its workers, joined in order of time.

    With WORKER, prints that worker's log only; `front` is the front. Works without a running front,
    too: logs stay.
    """
    from supervisor import log_files
    from supervisor.control.client import NotRunning

    folder = find(runtime_dir).logs
    names = log_files.names(folder)
    if not names:
        raise NotRunning(f"no logs in {folder}: nothing has run there")
    if worker is not None and worker not in names:
        raise click.UsageError(f"no log of {worker!r}; there are {', '.join(names)}")
    tail = log_files.Tail(folder, worker)
    style = _painter(names)
    _print(tail.last(lines), style)
    if follow:
        # Ctrl-C is the way to leave an endless view
        try:
            for batch in tail.follow():
                _print(batch, style)
        except KeyboardInterrupt:
            if sys.stdout.isatty():
                click.echo()  # else the prompt would stand behind the terminal's ^C


def _print(lines: Iterable[tuple[str, str]], style: Callable[[str, str], str]) -> None:
    for name, text in lines:
        # libraries write to a worker's log past the logger, and a model file may be in their words
        click.echo(style(name, printable(text)))


def _painter(names: list[str]) -> Callable[[str, str], str]:
    """Prefixes each line with its process's name, aligned and in a colour of its own."""
    width = max(len(name) + (0 if name == FRONT else len(".99")) for name in names)

    def paint(name: str, text: str) -> str:
        if text.startswith("{"):
            return text  # JSON names its process, and is for other programs
        at = names.index(name) if name in names else len(names)
        process, text = _named_once(name, text)
        prefix = click.style(process.ljust(width), fg=_COLOURS[at % len(_COLOURS)])
        level = next((colour for word, colour in _LOUD.items() if f" {word}" in text[:40]), None)
        return f"{prefix}  {click.style(text, fg=level) if level else text}"

    return paint


def _named_once(name: str, text: str) -> tuple[str, str]:
    """The process that wrote the line, and the line without its own mention of it."""
    match = _ROLE.match(text)
    if match and (match["role"] == name or match["role"].startswith(f"{name}.")):
        return match["role"], match["head"] + text[match.end() :]
    return name, text
