"""`models inspect`, with llama.cpp's own look at each kind of file."""

import ctypes
import json
from functools import partial
from pathlib import Path
from typing import Any

import click.testing
import gguf
import llama_cpp
import pytest
from click.testing import CliRunner

from supervisor.cli import cli
from tests.models import making
from tests.models.families import FAMILIES


def inspect(path: Path, *options: str) -> click.testing.Result:
    return CliRunner().invoke(cli, ["models", "inspect", str(path), *options])


def facts(path: Path) -> dict[str, Any]:
    result = inspect(path, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def requantized(source: Path, target: Path) -> Path:
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, 1
    settings.allow_requantize = True
    names = str(source).encode(), str(target).encode()
    assert llama_cpp.llama_model_quantize(*names, ctypes.byref(settings)) == 0
    return target


def test_a_requantized_model_is_smaller_and_otherwise_the_same(
    model_path: Path, tmp_path: Path
) -> None:
    before = facts(model_path)
    after = facts(requantized(model_path, tmp_path / "small.gguf"))
    for name in ("architecture", "n_ctx_train", "chat_template", "purpose", "context_bytes"):
        assert after[name] == before[name]
    assert before["chat_template"]
    assert "Q4_0" in after["quantization"]
    assert "Q4_0" not in before["quantization"]
    assert after["needed_bytes"] < before["needed_bytes"]
    assert after["fits"]


def test_a_split_model_is_all_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = facts(making.made("llama"))
    writer = partial(gguf.GGUFWriter, split_max_tensors=8)
    monkeypatch.setattr(gguf, "GGUFWriter", writer)
    making._write(tmp_path / "split.gguf", FAMILIES["llama"]())
    parts = sorted(tmp_path.glob("split-*.gguf"))
    assert len(parts) > 1
    found = facts(parts[0])
    assert (found["n_parts"], found["n_tensors"]) == (len(parts), whole["n_tensors"])
    assert found["file_bytes"] == sum(part.stat().st_size for part in parts)
    parts[1].unlink()
    assert_refused(parts[0], parts[1].name)


def test_a_truncated_model_is_one_line(model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    data = model_path.read_bytes()
    for end in (len(data) // 2, 10_000, 12):
        path.write_bytes(data[:end])
        assert_refused(path, "cut.gguf")


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04" + b"x" * 100, b"<!doctype html>"])
def test_a_file_that_is_no_gguf_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(content)
    assert_refused(path, "other.gguf")


def assert_refused(path: Path, named: str) -> None:
    result = inspect(path)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.output
    assert named in result.stderr
