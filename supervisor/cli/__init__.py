"""The command line: `gpufc-supervisor`.

One module for each command. A command imports heavy modules inside its function, so that `--help`
answers at once. Each error is one line on stderr and an exit code (`errors.py`).
"""

import importlib
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from supervisor import program, standard_streams

PROGRAM = program.NAME

COMMANDS = {
    "start": "supervisor.cli.start",
    "status": "supervisor.cli.status",
    "stop": "supervisor.cli.stop",
    "drain": "supervisor.cli.drain",
    "restart": "supervisor.cli.restart",
    "swap": "supervisor.cli.swap",
    "reload": "supervisor.cli.reload",
    "upgrade": "supervisor.cli.upgrade",
    "logs": "supervisor.cli.logs",
    "crashes": "supervisor.cli.crashes",
    "models": "supervisor.cli.models",
    "pull": "supervisor.cli.pull",
    "load": "supervisor.cli.load",
    "unload": "supervisor.cli.unload",
    "chat": "supervisor.cli.chat",
    "connect": "supervisor.cli.connect",
    "fabric": "supervisor.cli.fabric",
    "host": "supervisor.cli.host",
    "hosts": "supervisor.cli.hosts",
    "bench": "supervisor.cli.bench",
    "keys": "supervisor.cli.keys",
    "config": "supervisor.cli.config",
    "doctor": "supervisor.cli.doctor",
    "install-service": "supervisor.cli.install_service",
    "report": "supervisor.cli.report",
    "version": "supervisor.cli.version",
    "completion": "supervisor.cli.completion",
}
"""In the order in which a newcomer needs them."""


class Commands(click.Group):
    """A group that imports a command when it is called. Each error is one line on stderr."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = importlib.import_module(module).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's. The error for an unknown command names the most similar one."""
        if args[0] not in COMMANDS:
            from gpufc.settings import closest

            close = closest(args[0], COMMANDS)
            hint = f"did you mean {close}?" if close else f"there are {', '.join(COMMANDS)}"
            ctx.fail(f"No such command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """As click's, except that every error is one line on stderr with an exit code of
        `errors.py`."""
        from supervisor.cli.errors import reported

        main: Callable[..., Any] = super().main
        run = partial(main, *args, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        sys.exit(reported(run, (args and args[0]) or extra.get("args") or sys.argv[1:]))


@click.group(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
    epilog=f"First steps: `{program.command('doctor')}` says whether this machine is ready, "
    f"`{program.command('start')}` serves the demo model, `{program.command('chat')}` talks to it.",
)
@click.version_option(None, "-V", "--version", package_name="gpufc", message="%(version)s")
def cli() -> None:
    """Serve a language model on this machine over OpenAI's API.

    The front answers HTTP and outlives its engine: when a worker dies, another one takes over.
    """


def main() -> None:
    """The console script."""
    standard_streams.open_all()
    cli(prog_name=PROGRAM)
