"""`config show` writes a file that means the same; `config check` agrees with `start`."""

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gpufc import settings
from supervisor.cli import cli
from supervisor.cli.errors import USAGE
from tests.supervisor.cli import files


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A configuration of one model by its table, with defaults for all."""
    model = files.gguf(tmp_path / "m.gguf")
    path = tmp_path / "gpufc.toml"
    path.write_text(
        f'port = 0\n[model]\nn_ctx = 100\naliases = ["claude-*", "gpt-4o"]\n'
        'sampling = { top_k = 5, dry_sequence_breakers = ["\\n", "x"] }\n'
        f'[models."my chat"]\nmodel_path = "{model}"\n'
    )
    return path


def config(*words: str) -> Result:
    return CliRunner().invoke(cli, ["config", *words])


def test_the_default_models_keys_are_shown_flat() -> None:
    shown = tomllib.loads(config("show", "--n-ctx", "99").stdout)
    assert shown["n_ctx"] == 99
    assert "models" not in shown


def test_a_models_keys_are_shown_in_its_table_with_their_sources(models: Path) -> None:
    lines = config("show", "--config", str(models)).stdout.splitlines()
    (n_ctx,) = (line for line in lines if line.startswith("n_ctx ="))
    assert n_ctx.endswith(f"# file {models} [model]")
    assert lines.index('[models."my chat"]') < lines.index(n_ctx)


def test_the_shown_file_means_the_same_when_it_is_read_again(models: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.toml"
    again.write_text(config("show", "--config", str(models)).stdout)
    before, after = (
        settings.resolve(flags={}, environ={}, file=file).config for file in (models, again)
    )
    assert after == before


def test_rows_for_scripts_name_their_model(models: Path) -> None:
    rows = json.loads(config("show", "--json", "--config", str(models)).stdout)
    by_key = {row["key"]: row for row in rows}
    assert by_key["port"]["model"] is None
    assert by_key["n_ctx"] == {
        "key": "n_ctx", "value": 100, "source": f"file {models} [model]", "model": "my chat",
    }  # fmt: skip


def test_check_names_the_file_that_would_be_served(models: Path) -> None:
    result = config("check", "--config", str(models))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"fine: would serve {models.parent / 'm.gguf'}\n"


def test_several_models_are_served(models: Path) -> None:
    second = files.gguf(models.parent / "second.gguf")
    models.write_text(models.read_text() + f'[models.second]\nmodel_path = "{second}"\n')
    result = config("check", "--config", str(models))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"fine: would serve {models.parent / 'm.gguf'}, {second}\n"


def test_two_models_of_one_name_are_refused(models: Path) -> None:
    models.write_text(models.read_text() + "[models.default]\n")
    result = config("check", "--config", str(models), "--model", "my chat")
    assert result.exit_code == USAGE
    (line,) = result.stderr.splitlines()
    assert "[models.my chat] and [models.default]" in line


def test_a_folder_of_models_is_enough(tmp_path: Path) -> None:
    result = config("check", "--models-dir", str(tmp_path))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"fine: would serve the models in {tmp_path}\n"
    result = config("check", "--models-dir", str(tmp_path / "nothing"))
    assert result.exit_code == USAGE
    assert "is not a folder" in result.stderr


def test_a_models_wrong_file_is_named_with_its_table(models: Path) -> None:
    (models.parent / "m.gguf").unlink()
    result = config("check", "--config", str(models))
    assert result.exit_code == USAGE
    assert "[models.my chat]" in result.stderr
