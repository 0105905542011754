"""Models in tables of the file: what each one's keys are, and where they come from."""

from pathlib import Path

import pytest

from gpufc.config import (
    Config,
)
from tests.gpufc.settled import resolve

MODELS = """
port = 1
n_threads = 3
n_ctx = 101
[model]
n_ctx = 100
batch_tokens = 64
kv_cells = 500
[models.chat]
model_path = "/m/chat.gguf"
n_ctx = 102
[models."big one"]
model_path = "/m/big.gguf"
kv_cells = 600
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models.toml"
    path.write_text(MODELS)
    return path


def test_each_table_is_a_model_served_under_the_tables_name(models: Path) -> None:
    found = resolve(file=models).config.models
    assert [(name, m.model, m.model_path) for name, m in found.items()] == [
        ("chat", "chat", "/m/chat.gguf"),
        ("big one", "big one", "/m/big.gguf"),
    ]


def test_a_models_own_table_beats_flat_keys_which_beat_the_shared_section(models: Path) -> None:
    chat, big = resolve(file=models).config.models.values()
    assert (chat.n_ctx, chat.kv_cells, chat.batch_tokens, chat.n_threads) == (102, 500, 64, 3)
    assert (big.n_ctx, big.kv_cells, big.batch_tokens, big.n_threads) == (100, 600, 64, None)


def test_flags_and_variables_mean_the_first_model(models: Path) -> None:
    found = resolve({"n_ctx": "200", "model": "other"}, {"GPUFC_KV_CELLS": "700"}, models)
    chat, big = found.config.models.values()
    assert (chat.n_ctx, chat.kv_cells, chat.model) == (200, 700, "other")
    assert (big.n_ctx, big.kv_cells, big.model) == (100, 600, "big one")


def test_flags_mean_the_table_named_default_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    path.write_text("[models.first]\n[models.default]\n")
    first, default = resolve({"n_ctx": "200"}, {}, path).config.models.values()
    assert (first.n_ctx, default.n_ctx) == (4096, 200)
    assert (first.model, default.model) == ("first", None)


def test_the_models_of_a_folder_have_the_shared_section(models: Path) -> None:
    flags = {"n_ctx": "200", "models_dir": "/m"}
    found = resolve(flags, {"GPUFC_KV_CELLS": "700"}, models)
    assert (found.config.of_folder.n_ctx, found.config.of_folder.kv_cells) == (100, 500)
    assert all(value.model != "" for value in found.values)


@pytest.mark.parametrize(
    ("text", "preloaded"),
    [
        ("", {"default": True}),
        ("preload = false", {"default": False}),
        ("[models.a]\n[models.b]\n", {"a": False, "b": False}),
        ("[models.a]\npreload = true\n[models.b]\npinned = true\n", {"a": True, "b": True}),
    ],
)
def test_the_only_model_is_loaded_at_the_start(
    tmp_path: Path, text: str, preloaded: dict[str, bool]
) -> None:
    path = tmp_path / "file.toml"
    path.write_text(text)
    config = resolve(file=path).config
    assert {name: config.is_preloaded(name) for name in config.models} == preloaded


def test_each_models_value_knows_its_table(models: Path) -> None:
    found = {(v.model, v.key.name): str(v.source) for v in resolve(file=models).values}
    assert found["chat", "n_ctx"] == f"file {models} [models.chat]"
    assert found["chat", "n_threads"] == f"file {models}"
    assert found["big one", "n_ctx"] == f"file {models} [model]"
    assert found["big one", "n_threads"] == "default"
    assert found[None, "port"] == f"file {models}"


def test_models_load_over_http_from_the_folders_of_the_configured_ones(models: Path) -> None:
    assert resolve(file=models).config.model_folders() == ["/m"]
    named = resolve({"model_dirs": "/a:/b:"}, {}, models)
    assert named.config.model_folders() == ["/a", "/b"]
    assert Config().model_folders() == []
