"""`report`: what the archive has, and what never gets into it."""

import json
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from supervisor.cli.report import command
from supervisor.cli.report_texts import clean

KEY = "gpufc_" + "k" * 43


def archived(tmp_path: Path, *args: str) -> tuple[dict[str, str], str]:
    path = tmp_path / "report.zip"
    path.touch(mode=0o644)
    options = ["-o", str(path), "--runtime-dir", str(tmp_path / "run"), *args]
    result = CliRunner().invoke(command, options, catch_exceptions=False)
    assert result.exit_code == 0
    assert path.stat().st_mode & 0o077 == 0
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}, result.output


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("INFO front access: request_prompt request=r1 prompts=[open sesame]", ""),
        ('{"event": "request_prompt", "prompts": "open sesame"}', ""),
        ("request_answered client=10.0.0.7 key=me", "request_answered client=(hidden) key=me"),
        ('{"client": "10.0.0.7", "key": "me"}', '{"client": "(hidden)", "key": "me"}'),
        (f"sent {KEY}", "sent (secret)"),
    ],
)
def test_prompts_addresses_and_secrets_are_taken_out(line: str, kept: str) -> None:
    assert clean(line) == kept + "\n"


def test_without_a_front_the_report_has_the_logs_and_says_what_is_missing(tmp_path: Path) -> None:
    logs = tmp_path / "run/logs"
    logs.mkdir(parents=True)
    (logs / "front.log").write_text(f"a line\nrequest_prompt request=r1 prompts=sesame\n{KEY}\n")
    (logs / "plugin-audit.log").write_text("a plugin prints prompts")
    (logs / "secret.log").symlink_to("/etc/passwd")
    crashes = tmp_path / "run/crashes"
    crashes.mkdir()
    (crashes / "1-default-0-1.json").write_text('{"reason": "killed"}')
    files, said = archived(tmp_path)
    assert files["logs/front.log"] == "a line\n(secret)\n"
    assert not {"logs/secret.log", "logs/plugin-audit.log"} & files.keys()
    assert json.loads(files["crashes/1-default-0-1.json"]) == {"reason": "killed"}
    assert json.loads(files["versions.json"])["gpufc"]
    assert "# the configuration that `start` would have" in files["config.toml"]
    assert "status.json" not in files
    assert "left out: status.json: nothing runs in" in said
    assert "status.json: nothing runs in" in files["README.txt"]


def test_a_configured_secret_is_hidden(tmp_path: Path) -> None:
    config = tmp_path / "gpufc.toml"
    options = 'plugins = [{ use = "audit", options = { token = "sesame" } }]'
    config.write_text(f'client_id = "sesame"\n{options}\n')
    files, _ = archived(tmp_path, "--config", str(config))
    assert files["config.toml"].count("(hidden)") == 2
    assert "sesame" not in "".join(files.values())
