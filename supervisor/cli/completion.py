"""`completion`: a shell's completion script for commands and options."""

import click

_HOW = {
    "bash": 'eval "$(gpufc-supervisor completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(gpufc-supervisor completion zsh)"    # in ~/.zshrc',
    "fish": "gpufc-supervisor completion fish | source   # in ~/.config/fish/config.fish",
}


@click.command(
    "completion", epilog="\b\nOne line in the shell's own file:\n" + "\n".join(_HOW.values())
)
@click.argument("shell", type=click.Choice(list(_HOW)))
def command(shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    from supervisor.cli import PROGRAM, cli

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"there is no completion for {shell}")
    variable = f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE"
    click.echo(found(cli, {}, PROGRAM, variable).source())
