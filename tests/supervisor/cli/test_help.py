"""Every help text: fits the terminal, names defaults and variables, and is quick to get."""

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from gpufc import settings
from supervisor.cli import COMMANDS, cli
from supervisor.cli.options import show

WIDEST = 100


def commands() -> Iterator[list[str]]:
    yield []
    for name in COMMANDS:
        yield [name]
    yield ["config", "show"]
    yield ["config", "check"]
    yield ["models", "inspect"]
    yield ["models", "rm"]
    yield from (["keys", name] for name in ("add", "list", "revoke"))


def help_of(command: list[str], columns: int = 100) -> str:
    result = CliRunner().invoke(
        cli, [*command, "--help"], env={"COLUMNS": str(columns)}, prog_name="gpufc-supervisor"
    )
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("columns", [80, 100, 200])
@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_help_fits(command: list[str], columns: int) -> None:
    text = help_of(command, columns)
    assert max(len(line) for line in text.splitlines()) <= min(columns, WIDEST)
    assert "..." not in text.replace("[ARGS]...", "")


@pytest.mark.parametrize("command", [["start"], ["doctor"], ["config", "show"]], ids=" ".join)
def test_every_setting_names_its_default_and_its_variable(command: list[str]) -> None:
    text = " ".join(help_of(command).split())
    for key in settings.keys().values():
        if key.has_flag:
            spelt = f"{key.flag}, {key.alias}" if key.alias else key.flag
            assert f"{spelt} " in text
            assert f"[env: {key.variable}]" in text
            assert key.default is None or f"[default: {show(key.default)}]" in text
    assert text.count("[default:") == text.count("[env:")


def test_every_command_takes_the_runtime_folder_after_its_name() -> None:
    groups = [["config", "show"], ["crashes", "list"], ["crashes", "show"], ["fabric", "status"]]
    groups += [["hosts", name] for name in ("list", "invite", "drain", "forget")]
    without = {"config", "crashes", "fabric", "hosts", "keys", "pull", "version", "completion"}
    for words in [*groups, *([name] for name in sorted(set(COMMANDS) - without))]:
        assert "--runtime-dir" in help_of(words)


def test_every_option_that_takes_a_value_names_its_default() -> None:
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.is_flag:
                shown = " ".join(help_of([name]).split())
                assert "default:" in shown, (name, parameter.name)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    result = CliRunner().invoke(cli, ["completion", shell], prog_name="gpufc-supervisor")
    assert result.exit_code == 0
    assert "_GPUFC_SUPERVISOR_COMPLETE" in result.stdout


def test_completion_names_the_commands() -> None:
    env = {
        "_GPUFC_SUPERVISOR_COMPLETE": "bash_complete",
        "COMP_WORDS": "gpufc-supervisor sta",
        "COMP_CWORD": "1",
    }
    result = CliRunner().invoke(cli, [], env=env, prog_name="gpufc-supervisor")
    assert [line.split(",")[1] for line in result.stdout.splitlines()] == ["start", "status"]


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from supervisor.cli import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(result.stderr.split())
    assert not loaded & {"aiohttp", "rich", "psutil", "zmq", "asyncio", "uvloop", "http"}


def test_chat_explains_its_exit_codes() -> None:
    assert "1 the service refused" in " ".join(help_of(["chat"]).split())
