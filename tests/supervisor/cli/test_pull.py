"""`pull`, `models inspect` and `models rm`, from a hub that a test runs."""

import asyncio
from pathlib import Path

import click.testing
import pytest
from click.testing import CliRunner

from supervisor.cli import cli, doctor
from supervisor.cli.model_file import located
from tests.supervisor.downloads.server import CONTENT, DIGEST, hub


def run(folder: Path, *words: str, **environ: str) -> click.testing.Result:
    given = {"GPUFC_MODELS_DIR": str(folder), "HF_TOKEN": ""} | environ
    return CliRunner().invoke(cli, words, env=given)


async def beside(folder: Path, *words: str, **environ: str) -> click.testing.Result:
    """In a thread: the hub answers meanwhile."""
    return await asyncio.to_thread(lambda: run(folder, *words, **environ))


async def test_a_pulled_model_is_found_by_its_name_until_it_is_removed(tmp_path: Path) -> None:
    async with hub() as server:
        listing = {"path": "m-Q8_0.gguf", "size": len(CONTENT), "lfs": {"oid": DIGEST}}
        server.listing = [{"type": "file"} | listing]
        result = await beside(tmp_path, "pull", "o/r", "--hub", server.url, HF_TOKEN="t")
    assert result.exit_code == 0, result.output
    assert "m-Q8_0.gguf: 100%" in result.stderr
    assert result.stdout.startswith(f"{tmp_path}/m-Q8_0.gguf (")
    assert server.asked[0][1]["Authorization"] == "Bearer t"
    assert located("m-Q8_0", tmp_path) == str(tmp_path / "m-Q8_0.gguf")
    removed = run(tmp_path, "models", "rm", "m-Q8_0")
    assert (removed.exit_code, "freed" in removed.stdout) == (0, True)
    assert located("m-Q8_0", tmp_path) == "m-Q8_0"


async def test_a_wrong_checksum_is_one_line_and_no_file(tmp_path: Path) -> None:
    async with hub() as server:
        url = f"{server.url}/m.gguf"
        result = await beside(tmp_path, "pull", url, "--sha256", "0" * 64)
    assert result.exit_code != 0
    assert "is not the right file" in result.stderr
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize(
    ("name", "checksum", "report", "error"),
    [
        ("m", (), {"model": {"error": "it is truncated"}}, "it is truncated; "),
        ("m", (), {"llama_cpp": {"error": "crashed"}}, "could not be inspected: crashed; "),
        ("m", (), {"model": {}}, None),
        ("m", ("--sha256", DIGEST), {"model": {"error": "not asked"}}, None),
        ("m-00001-of-00002", (), {"model": {"error": "not asked"}}, None),
    ],
)
async def test_a_model_that_no_checksum_vouches_for_is_looked_into(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    checksum: tuple[str, ...],
    report: dict[str, dict[str, str]],
    error: str | None,
) -> None:
    monkeypatch.setattr(doctor, "probe", lambda _model: report)
    async with hub() as server:
        result = await beside(tmp_path, "pull", f"{server.url}/{name}.gguf", *checksum)
    assert result.exit_code == (0 if error is None else 1)
    if error is not None:
        assert error in result.stderr
        assert result.stderr.endswith("models rm m` deletes it\n")


async def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    token.chmod(0o644)
    result = run(tmp_path, "pull", "o/r", "--token-file", str(token))
    assert (result.exit_code, "chmod 600" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("pull", "nonsense"), "neither a URL nor OWNER/REPO"),
        (("pull", "o/r", "--offline"), "offline is set"),
        (("models", "rm", "../m"), "there is no model"),
        (("models", "inspect", "none"), "does not exist"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, words: tuple[str, ...], error: str) -> None:
    result = run(tmp_path, *words)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert error in result.stderr


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "page.gguf"
    path.write_text("<!doctype html>")
    result = run(tmp_path, "models", "inspect", str(path))
    assert (result.exit_code, "is a web page" in result.stderr) == (2, True)
