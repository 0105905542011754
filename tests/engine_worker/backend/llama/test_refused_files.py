"""Model files that are refused, with a reason in one line."""

from pathlib import Path

import pytest

from tests.engine_worker.backend.llama.loaded import refusal
from tests.engine_worker.model_file.gguf_files import gguf, pair, tensor, text

pytestmark = pytest.mark.model


def test_files_that_hold_no_text_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    weight = [tensor("w", (32,), 0, 0)]
    for pairs, reason in (
        ([pair("general.architecture", 8, text("clip"))], "not a text model"),
        (
            [
                pair("general.architecture", 8, text("llama")),
                pair("general.type", 8, text("adapter")),
            ],
            "not a text model",
        ),
        ([], "no architecture"),
    ):
        path.write_bytes(gguf(pairs, weight, b"\0" * 128))
        assert reason in refusal(path)
    path.write_bytes(gguf([pair("general.architecture", 8, text("llama"))], []))
    assert "no weights" in refusal(path)


def test_llama_cpp_s_own_reason_is_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    pairs = [pair("general.architecture", 8, text("llama"))]
    path.write_bytes(gguf(pairs, [tensor("w", (32,), 0, 0)], b"\0" * 128))
    assert "key not found" in refusal(path)
    pairs = [pair("general.architecture", 8, text("imaginary"))]
    path.write_bytes(gguf(pairs, [tensor("w", (32,), 0, 0)], b"\0" * 128))
    assert "unknown model architecture" in refusal(path)


def test_a_truncated_model_is_refused(tmp_path: Path, model_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    with model_path.open("rb") as file:
        path.write_bytes(file.read(50_000_000))
    assert "truncated" in refusal(path)


def test_too_large_a_cache_is_refused_before_it_is_tried(model_path: Path) -> None:
    assert "GiB" in refusal(model_path, kv_cells=268_435_456, kv_unified="true")
