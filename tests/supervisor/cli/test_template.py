"""A chat template that cannot be used is said where a model is chosen; its file is found."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from gpufc import settings
from gpufc.errors import ConfigError
from supervisor.cli import cli, preflight
from supervisor.cli.welcome import welcome
from supervisor.runtime_dir import RuntimeDir
from tests.supervisor.cli.files import gguf
from tests.supervisor.control.control_server import Server
from tests.supervisor.control.fake_front import document, worker

ERROR = "the model's chat template does not compile: unexpected end"
NOTE = f"chats are refused: {ERROR}; `chat_template` names another one"


def test_start_says_it_with_the_model(tmp_path: Path) -> None:
    lines = welcome(
        document(workers=[worker(template_error=ERROR)]), {}, RuntimeDir.find(str(tmp_path))
    )
    assert f"template   {NOTE}" in lines


def test_start_says_nothing_of_a_template_that_can_be_used(tmp_path: Path) -> None:
    for row in (worker(template_error=""), worker()):  # a front before this key
        lines = welcome(document(workers=[row]), {}, RuntimeDir.find(str(tmp_path)))
        assert not any("template" in line for line in lines)


@pytest.mark.parametrize("command", ["swap", "restart"])
@pytest.mark.parametrize("error", [ERROR, ""])
def test_a_replacement_says_it_after_the_new_worker(
    server: Server, tmp_path: Path, command: str, error: str
) -> None:
    front, path, _ = server
    front.row["template_error"] = error
    model = [str(gguf(tmp_path / "m.gguf"))] if command == "swap" else []
    result = CliRunner().invoke(cli, [command, *model, "--runtime-dir", str(path.parent)])
    assert result.exit_code == 0
    assert (f"default-0: {NOTE}" in result.stderr.splitlines()) is bool(error)


def plan(template: str, tmp_path: Path) -> str | None:
    """The template that a start with this key would use."""
    file = tmp_path / "gpufc.toml"
    file.write_text(f'chat_template = "{template}"\nbackend = "fake"\n')
    given = settings.resolve(flags={}, environ={}, file=file)
    return preflight.check_configuration(given).config.models["default"].chat_template


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a template in it."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "own.jinja").write_text("{{ messages }}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("given", ["templates/own.jinja", "./templates/own.jinja"])
def test_a_relative_path_is_the_starting_folder_s(here: Path, given: str) -> None:
    """A worker may run in another folder, and so may the next front."""
    found = plan(given, here)
    assert found is not None
    assert os.path.isabs(found)
    assert Path(found).samefile(here / "templates" / "own.jinja")


def test_a_file_in_the_folder_beats_a_name(here: Path) -> None:
    (here / "chatml").write_text("{{ messages }}")
    assert plan("chatml", here) == str(here / "chatml")


def test_a_name_stays_a_name(here: Path) -> None:
    assert plan("tool_use", here) == "tool_use"


def test_a_path_without_a_file_is_a_wrong_configuration(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"chat template .*/nowhere.jinja \(.*\) is not a file"):
        plan("templates/nowhere.jinja", here)
