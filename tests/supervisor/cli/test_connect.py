"""`connect`: what each client is told, and what is written into its files."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gpufc.errors import ConfigError
from supervisor.cli import cli
from supervisor.cli.clients.form import JsonFile, Served, Shown, TextFile, Variables
from supervisor.cli.clients.forms import CLIENTS
from supervisor.cli.clients.written import BACKUP, write
from tests.supervisor.control.control_server import Server
from tests.supervisor.control.fake_front import document, worker

ADDRESS = "http://127.0.0.1:8082"
SERVED = Served(ADDRESS, {"small": 8192, 'odd "name"': 4096}, "a key")


def texts(value: Any) -> list[str]:
    """All texts in a configuration."""
    if isinstance(value, dict):
        return [text for member in value.values() for text in texts(member)]
    if isinstance(value, list):
        return [text for member in value for text in texts(member)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("name", CLIENTS)
def test_every_client_is_told_the_address(name: str) -> None:
    match CLIENTS[name].configure(SERVED):
        case Variables(values):
            found = list(values.values())
        case JsonFile(_, members):
            found = texts(dict(members))
        case TextFile(_, text) | Shown(_, text):
            found = [text]
    assert any(ADDRESS in text for text in found)


@pytest.mark.parametrize("name", sorted(set(CLIENTS) - {"ollama", "open-webui", "openai"}))
def test_clients_that_do_not_ask_for_the_models_are_told_them(name: str) -> None:
    match CLIENTS[name].configure(SERVED):
        case Variables(values):
            found = list(values.values())
        case JsonFile(_, members):
            found = texts(dict(members))
        case TextFile(_, text) | Shown(_, text):
            found = [text]
    assert any("small" in text for text in found)


def test_codex_gets_a_profile_that_is_toml() -> None:
    configuration = CLIENTS["codex"].configure(SERVED)
    assert isinstance(configuration, TextFile)
    profile = tomllib.loads(configuration.text)
    assert (profile["model"], profile["model_provider"]) == ("small", "gpufc")
    provider = profile["model_providers"]["gpufc"]
    assert provider["base_url"] == f"{ADDRESS}/v1"
    assert provider["wire_api"] == "responses"
    assert provider["experimental_bearer_token"] == "a key"
    assert provider["stream_idle_timeout_ms"] > 300_000  # its default


def test_claude_code_waits_for_a_long_prompt() -> None:
    configuration = CLIENTS["claude-code"].configure(SERVED)
    assert isinstance(configuration, JsonFile)
    environ = configuration.members["env"]
    defaults = {"CLAUDE_STREAM_IDLE_TIMEOUT_MS": 300_000, "API_TIMEOUT_MS": 600_000}
    assert all(int(environ[name]) > milliseconds for name, milliseconds in defaults.items())


def test_continue_gets_a_whole_file() -> None:
    """Continue refuses a file without a name, a version and a schema."""
    configuration = CLIENTS["continue"].configure(SERVED)
    assert isinstance(configuration, Shown)
    top = [line.partition(":")[0] for line in configuration.text.splitlines() if line[0].isalpha()]
    assert top == ["name", "version", "schema", "models"]


def test_a_context_is_not_promised_twice() -> None:
    configuration = CLIENTS["copilot"].configure(SERVED)
    assert isinstance(configuration, Shown)
    (entry,) = json.loads(configuration.text)
    assert [m["maxInputTokens"] + m["maxOutputTokens"] for m in entry["models"]] == [8192, 4096]


def test_a_file_keeps_its_other_members_and_has_a_backup(tmp_path: Path) -> None:
    old = {"theme": "dark", "env": {"MINE": "1", "ANTHROPIC_BASE_URL": "https://elsewhere"}}
    path = tmp_path / ".claude" / "settings.json"
    path.parent.mkdir()
    path.write_text(json.dumps(old))
    path.chmod(0o644)
    configuration = CLIENTS["claude-code"].configure(SERVED)
    assert isinstance(configuration, JsonFile)
    written, backup = write(tmp_path, configuration)
    assert (written, backup) == (path, path.with_name(path.name + BACKUP))
    new = json.loads(path.read_text())
    assert new["theme"] == "dark"
    assert new["env"]["MINE"] == "1"
    assert new["env"]["ANTHROPIC_BASE_URL"] == ADDRESS
    assert path.stat().st_mode & 0o777 == 0o640
    assert json.loads(backup.read_text()) == old
    # again: nothing changes, and the backup stays the file without gpufc
    assert write(tmp_path, configuration) == (path, None)
    other = CLIENTS["claude-code"].configure(Served("http://10.0.0.1:1", {"b": 1}, "k"))
    assert isinstance(other, JsonFile)
    write(tmp_path, other)
    assert json.loads(backup.read_text()) == old


def test_a_new_file_with_a_key_is_for_its_owner_only(tmp_path: Path) -> None:
    configuration = CLIENTS["codex"].configure(SERVED)
    assert isinstance(configuration, TextFile)
    path, backup = write(tmp_path, configuration)
    assert backup is None
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == configuration.text


@pytest.mark.parametrize("text", ["// comment\n{}", "[1]"])
def test_a_file_that_cannot_be_merged_is_left_alone(tmp_path: Path, text: str) -> None:
    configuration = CLIENTS["zed"].configure(SERVED)
    assert isinstance(configuration, JsonFile)
    path = tmp_path / configuration.path
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"settings\.json"):
        write(tmp_path, configuration)
    assert path.read_text() == text
    assert [found.name for found in path.parent.iterdir()] == ["settings.json"]


def connect(server: Server, *args: str, home: Path | None = None) -> Result:
    front, path, _ = server
    workers = [worker(model="small", n_ctx=8192), worker(model="big", n_ctx=4096)]
    found = document(front=document()["front"] | {"addresses": [ADDRESS]}, workers=workers)
    front.status = lambda: found  # type: ignore[method-assign]
    env = {"HOME": str(home)} if home else {}
    return CliRunner().invoke(cli, ["connect", *args, "--runtime-dir", str(path.parent)], env=env)


def test_the_clients_are_listed(server: Server) -> None:
    listed = connect(server).stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(CLIENTS)


def test_variables_can_be_pasted_into_a_shell(server: Server) -> None:
    result = connect(server, "aider")
    assert result.exit_code == 0
    assert f"export OPENAI_API_BASE={ADDRESS}/v1" in result.stdout
    assert "export AIDER_MODEL=openai/small" in result.stdout
    assert "then: aider" in result.stderr


def test_the_preferred_model_can_be_named(server: Server) -> None:
    assert "AIDER_MODEL=openai/big" in connect(server, "aider", "--model", "big").stdout
    refused = connect(server, "aider", "--model", "none")
    assert refused.exit_code == 2
    assert "small, big" in refused.stderr


def test_a_file_is_written_only_when_asked(server: Server, tmp_path: Path) -> None:
    shown = connect(server, "codex", home=tmp_path)
    assert "~/.codex/gpufc.config.toml" in shown.stdout
    assert not (tmp_path / ".codex").exists()
    written = connect(server, "codex", "--write", home=tmp_path)
    assert written.exit_code == 0, written.output
    assert (tmp_path / ".codex/gpufc.config.toml").exists()


@pytest.mark.parametrize(
    ("args", "hint"), [(["cluade-code"], "claude-code"), (["copilot", "--write"], "no file")]
)
def test_a_wrong_command_is_one_line_with_a_remedy(
    server: Server, args: list[str], hint: str
) -> None:
    result = connect(server, *args)
    assert result.exit_code == 2
    assert hint in result.stderr
    assert len(result.stderr.splitlines()) <= 2
