"""`keys`: a key is shown once, its file is found, and mistakes are one line."""

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from supervisor.access import store
from supervisor.access.keys import PREFIX, digest
from supervisor.cli import cli
from supervisor.cli.errors import USAGE
from supervisor.dispatch.request import Scope


class Keys:
    """The command, on a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *words: str) -> Result:
        asked = ["keys", *words, "--keys-file", str(self.path)]
        return CliRunner(env={"COLUMNS": "200"}).invoke(cli, asked)

    def add(self, *words: str) -> str:
        """The new key."""
        result = self.run("add", *words)
        assert result.exit_code == 0, result.output
        return result.stdout.splitlines()[-1]

    def mistake(self, *words: str) -> str:
        """The one line of the command's error."""
        result = self.run(*words)
        assert result.exit_code == USAGE
        (line,) = result.stderr.splitlines()
        return line


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "own" / "keys.json")


def test_a_new_key_is_the_last_line_and_is_kept_as_its_hash(keys: Keys) -> None:
    text = keys.add("me")
    assert text.startswith(PREFIX)
    (key,) = store.load(keys.path).keys
    assert (key.name, key.sha256, key.scopes) == ("me", digest(text), (Scope.GENERATE,))
    assert key.expires is None
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    for words in (("list",), ("list", "--json")):
        shown = keys.run(*words).output
        assert "me" in shown
        assert text not in shown
        assert digest(text) not in shown


def test_everything_about_a_key_can_be_said(keys: Keys) -> None:
    keys.add(
        *("me", "--scope", "read", "--scope", "admin", "--scope", "read", "--model", "a"),
        *("--model", "b*", "--expires", "2", "--requests-per-minute", "3"),
        *("--tokens-per-minute", "4", "--concurrent", "5", "--cache-group", "team"),
    )
    (key,) = store.load(keys.path).keys
    assert key.scopes == (Scope.READ, Scope.ADMIN)
    assert key.models == ("a", "b*")
    assert key.expires == key.created + 2 * 86_400
    assert (key.requests_per_minute, key.tokens_per_minute, key.concurrent) == (3, 4, 5)
    assert key.cache_group == "team"
    (row,) = json.loads(keys.run("list", "--json").stdout)
    assert (row["name"], row["models"]) == ("me", ["a", "b*"])
    shown = keys.run("list").stdout
    assert "3 requests/min, 4 tokens/min, 5 at once" in shown


def test_a_revoked_key_is_gone(keys: Keys) -> None:
    keys.add("a")
    keys.add("b")
    assert keys.run("revoke", "a").exit_code == 0
    assert [key.name for key in store.load(keys.path).keys] == ["b"]
    assert keys.run("revoke", "b").exit_code == 0
    assert keys.run("list").stdout == "there are no keys\n"


def test_mistakes_are_one_line(keys: Keys) -> None:
    assert "does not exist" in keys.mistake("list")
    assert "does not exist" in keys.mistake("revoke", "a")
    keys.add("a")
    assert "there is a key a already" in keys.mistake("add", "a")
    assert "no key b" in keys.mistake("revoke", "b")
    assert "the name 'a b'" in keys.mistake("add", "a b")
    assert "the name '../x'" in keys.mistake("add", "../x")
    assert "--requests-per-minute" in keys.mistake("add", "c", "--requests-per-minute", "0")
    assert "--concurrent" in keys.mistake("add", "c", "--concurrent", "-1")
    assert "--model" in keys.mistake("add", "c", "--model", "")
    assert "write" in keys.mistake("add", "c", "--scope", "write")
    assert [key.name for key in store.load(keys.path).keys] == ["a"]


def test_a_file_that_is_open_to_others_is_not_used(keys: Keys) -> None:
    keys.add("a")
    keys.path.chmod(0o644)
    assert "chmod 600" in keys.mistake("add", "b")


def test_the_file_is_the_configured_one_or_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert CliRunner().invoke(cli, ["keys", "add", "a"]).exit_code == 0
    assert store.load(tmp_path / "xdg" / "gpufc" / "keys.json").keys[0].name == "a"
    config = tmp_path / "gpufc.toml"
    config.write_text(f'keys_file = "{tmp_path}/named.json"\n')
    words = ["keys", "add", "b", "--config", str(config)]
    assert CliRunner().invoke(cli, words).exit_code == 0
    assert store.load(tmp_path / "named.json").keys[0].name == "b"
    monkeypatch.setenv("GPUFC_KEYS_FILE", str(tmp_path / "variable.json"))
    assert CliRunner().invoke(cli, ["keys", "add", "c"]).exit_code == 0
    assert store.load(tmp_path / "variable.json").keys[0].name == "c"
