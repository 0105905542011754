"""`models inspect` on the real model in its forms."""

from pathlib import Path

import click.testing
import pytest
from click.testing import CliRunner

from supervisor.cli import cli
from tests.model_variants import requantized, split, truncated

pytestmark = [pytest.mark.model, pytest.mark.slow]


def inspected(path: Path) -> click.testing.Result:
    return CliRunner().invoke(cli, ["models", "inspect", str(path)])


@pytest.mark.parametrize("form", ["as it is", "packed otherwise", "in parts"])
def test_a_whole_model_shows_what_it_is_and_whether_it_fits(
    model_path: Path, tmp_path: Path, form: str
) -> None:
    path, size, kind = model_path, "(93.8 MiB)", "Q4_1"
    if form == "packed otherwise":
        path, size, kind = requantized(model_path, tmp_path / "m.gguf"), "(138 MiB)", "Q8_0"
    elif form == "in parts":
        path, *rest = split(model_path, tmp_path, n_tensors=100)
        size = f"(93.8 MiB in {1 + len(rest)} parts)"
    found = inspected(path)
    assert found.exit_code == 0, found.stderr
    file, model, purpose, context, template, needs, *_ = found.stdout.splitlines()
    assert file == f"file      {path} {size}"
    assert model.endswith(f", llama, {kind}")
    assert (purpose, context) == ("purpose   generate", "context   8,192 tokens at most")
    assert "for message in messages" in template
    assert needs.endswith(": it fits")
    assert "  llama.block_count = 30" in found.stdout


def test_a_model_that_is_not_whole_says_so_in_a_line(model_path: Path, tmp_path: Path) -> None:
    cut = inspected(truncated(model_path, tmp_path / "cut.gguf", n_bytes=1_000_000))
    assert (cut.exit_code, len(cut.stderr.splitlines())) == (2, 1)
    assert "is truncated" in cut.stderr
    first, second, *_ = split(model_path, tmp_path, n_tensors=100)
    later = inspected(second)
    assert (later.exit_code, f"give the first part, {first.name}" in later.stderr) == (2, True)
    second.unlink()
    missing = inspected(first)
    assert (missing.exit_code, f"{second} does not exist" in missing.stderr) == (2, True)
