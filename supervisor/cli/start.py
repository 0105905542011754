"""`start`: checks everything that can be checked, then serves, here or in the background."""

from typing import TYPE_CHECKING, Any

import click

from supervisor import program
from supervisor.cli.options import config_option, resolve, setting_options

if TYPE_CHECKING:
    from gpufc.settings import Settings


@click.command(
    "start",
    epilog=f"Keys without a flag are set by variable or file; `{program.command('config show')}` "
    "lists them all. Exit codes: 0 ended as asked, 2 bad usage or configuration, 3 could not "
    "start.",
)
@setting_options()
@config_option
@click.option("--detach", "-d", is_flag=True, help="serve in the background; returns when ready")
def command(config_file: str | None, detach: bool, **flags: Any) -> None:
    """Serve a model over OpenAI's API, until Ctrl-C or SIGTERM.

    Without --model-path, serves the demo model. A flag beats a variable beats the file. The first
    Ctrl-C lets running requests end, the second one stops at once.
    """
    from supervisor.cli import preflight

    settings = resolve(flags, config_file)
    plan = preflight.check(settings)
    for line in plan.notes:
        click.echo(line, err=True)
    for line in _demo_lines(settings) if plan.is_demo else ():
        click.echo(line)
    if detach:
        from supervisor.cli.detach import start_detached

        start_detached(plan.config, _arguments(flags, config_file), _secrets(flags))
    else:
        from supervisor.cli.foreground import serve
        from supervisor.cli.origins import origins

        read_from = origins(flags, config_file, settings.stamp)
        serve(plan.config, settings.values, read_from)


def _demo_lines(settings: "Settings") -> tuple[str, ...]:
    """Lines before the load. They promise nothing."""
    from supervisor.runtime_dir import RuntimeDir

    folder = RuntimeDir.find(settings.config.server.runtime_dir)
    return (
        "No model was named: this is the demo model, SmolLM2 135M, small, quick and often wrong.",
        f"For another one: {folder.command('start --model-path FILE.gguf')}",
        "",
    )


def _arguments(flags: dict[str, Any], config_file: str | None) -> list[str]:
    """The same command line again, without `--detach` and without secrets."""
    from gpufc.settings import keys

    known = keys()
    given = [
        known[name].flag if known[name].type.__origin__ is bool else f"{known[name].flag}={value}"
        for name, value in flags.items()
        if value is not None and not known[name].is_secret
    ]
    return given + ([f"--config={config_file}"] if config_file else [])


def _secrets(flags: dict[str, Any]) -> dict[str, str]:
    """The secrets among the flags as variables: every user can read a process's arguments."""
    from gpufc.settings import keys

    known = keys()
    return {
        known[name].variable: value
        for name, value in flags.items()
        if value is not None and known[name].is_secret
    }
