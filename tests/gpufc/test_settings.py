"""The source of each configuration value, and the message for each mistake."""

from pathlib import Path

import pytest

from gpufc import settings
from gpufc.config import (
    DEFAULT_MODEL,
    Config,
    KvUnified,
    ModelConfig,
    NetworkShare,
    Replay,
    Standby,
)
from gpufc.errors import ConfigError
from gpufc.sampling import SamplingDefaults
from gpufc.settings import checking
from gpufc.settings.keys import declared
from tests.gpufc.settled import only, resolve


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "gpufc.toml"
    path.write_text('port = 1\nn_ctx = 101\nstandby = "hot"\n')
    return path


def test_without_anything_given_the_defaults_are_in_force() -> None:
    assert resolve().config == Config()
    assert {str(value.source) for value in resolve().values} == {"default"}


def test_flag_beats_variable_beats_file_beats_default(toml: Path) -> None:
    found = resolve({"port": 3}, {"GPUFC_PORT": "2", "GPUFC_N_CTX": "102"}, toml)
    assert found.config.server.port == 3
    assert only(found).n_ctx == 102
    assert found.config.fleet.standby is Standby.HOT
    assert only(found).replay is Replay.FAST


def test_each_value_knows_its_source(toml: Path) -> None:
    found = resolve({"port": 3}, {"GPUFC_N_CTX": "102"}, toml)
    sources = {value.key.name: str(value.source) for value in found.values}
    assert sources["port"] == "flag --port"
    assert sources["n_ctx"] == "variable GPUFC_N_CTX"
    assert sources["standby"] == f"file {toml}"
    assert sources["replay"] == "default"


def test_a_flag_that_was_not_given_does_not_count() -> None:
    assert resolve({"port": None}, {"GPUFC_PORT": "2"}).config.server.port == 2


def test_every_key_has_a_unique_name_a_description_and_a_variable() -> None:
    found = list(declared())
    assert len({key.name for key in found}) == len(found)
    assert all(key.description for key in found)
    assert all(key.variable == f"GPUFC_{key.name.upper()}" for key in found)


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({}, 'aliases = ["claude-*", "gpt-4o"]'),
        ({}, 'aliases = "claude-*, gpt-4o"'),
        ({}, '[model]\naliases = ["claude-*", "gpt-4o"]'),
        ({"GPUFC_ALIASES": "claude-*,gpt-4o"}, 'aliases = ["other"]'),
    ],
)
def test_a_list_may_be_one_text_with_commas(
    environ: dict[str, str], text: str, tmp_path: Path
) -> None:
    file = tmp_path / "gpufc.toml"
    file.write_text(text)
    assert only(resolve(environ=environ, file=file)).aliases == ("claude-*", "gpt-4o")
    assert only(resolve(environ={"GPUFC_ALIASES": ""}, file=file)).aliases == ()


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({}, "sampling = { temperature = 1, samplers = ['top_k', 'temp'] }"),
        ({}, "[model.sampling]\ntemperature = 1.0\nsamplers = ['top_k', 'temp']"),
        ({"GPUFC_SAMPLING": "{ temperature = 1, samplers = ['top_k', 'temp'] }"}, ""),
    ],
)
def test_defaults_of_sampling_are_a_table(
    environ: dict[str, str], text: str, tmp_path: Path
) -> None:
    file = tmp_path / "gpufc.toml"
    file.write_text(text)
    found = only(resolve(environ=environ, file=file)).sampling
    assert found == SamplingDefaults(temperature=1.0, samplers=["top_k", "temp"])


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"GPUFC_ALIASES": "a,,b"}, ["aliases", "a list of texts, none of them empty"]),
        ({"GPUFC_N_CTXX": "1"}, ["GPUFC_N_CTXX", "did you mean GPUFC_N_CTX?"]),
        ({"GPUFC_QWERTY": "1"}, ["GPUFC_QWERTY", "config show"]),
        ({"GPUFC_N_CTX": "many"}, ["n_ctx", "GPUFC_N_CTX", "'many'", "a whole number from 16"]),
        ({"GPUFC_PORT": "65536"}, ["port", "a whole number from 0 to 65535"]),
        ({"GPUFC_STANDBY": "cold"}, ["standby", "'cold'", "none, warm or hot"]),
        ({"GPUFC_KV_UNIFIED": "perhaps"}, ["kv_unified", "'perhaps'", "auto, true or false"]),
        ({"GPUFC_USE_MLOCK": "perhaps"}, ["use_mlock", "'perhaps'", "must be true or false"]),
        ({"GPUFC_CACHE_TYPE_K": "f8"}, ["cache_type_k", "'f8'", "f16, bf16, f32, q8_0"]),
        ({"GPUFC_SPLIT_MODE": "rows"}, ["split_mode", "none, layer or row"]),
        ({"GPUFC_TENSOR_SPLIT": "3;1"}, ["tensor_split", "'3;1'", "such as `3,1`"]),
        ({"GPUFC_TENSOR_SPLIT": "-1,1"}, ["tensor_split", "'-1,1'"]),
        ({"GPUFC_DEVICES": ""}, ["devices", "not empty"]),
        ({"GPUFC_MAIN_GPU": "-1"}, ["main_gpu", "a whole number from 0"]),
        ({"GPUFC_SHUTDOWN_TIMEOUT_S": "long"}, ["'long'", "must be a number from 0 to 86400"]),
        ({"GPUFC_LOAD_TIMEOUT_S": "0"}, ["a number over 0 and at most 86400"]),
        ({"GPUFC_KV_CELLS": "few"}, ["kv_cells", "a whole number from 16"]),
        ({"GPUFC_MODEL": ""}, ["model", "not empty"]),
        ({"GPUFC_MODEL_PATH": ""}, ["model_path (variable GPUFC_MODEL_PATH) is empty"]),
        ({"GPUFC_FLAVOUR": "1"}, ["GPUFC_FLAVOUR", "config show"]),
        ({"GPUFC_SAMPLING": "hot"}, ["sampling", "'hot'", "it must be a table of defaults"]),
        ({"GPUFC_SAMPLING": "{ top_p = 7 }"}, ["sampling", "top_p: it must be a number from 0"]),
        ({"GPUFC_SAMPLING": "{ topp = 1 }"}, ["it has no topp; did you mean top_p?"]),
        ({"GPUFC_SAMPLING": '{ samplers = "kq" }'}, ["samplers: 'q' is no sampler"]),
    ],
)
def test_a_wrong_variable_is_named_with_its_reason(
    environ: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(environ=environ)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 1", ["unknown key prot", "did you mean port?"]),
        ("port = '80'", ["port", "a whole number"]),
        ("port = ", ["not valid TOML"]),
        ("a = " + "[" * 5000, ["nested too deeply"]),
    ],
)
def test_a_wrong_file_is_named_with_its_reason(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        resolve(file=path)
    for word in (*words, str(path)):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kv_unified = true", KvUnified.TRUE),
        ("kv_unified = false", KvUnified.FALSE),
        ("kv_unified = 'auto'", KvUnified.AUTO),
        ("n_ctx = 4096", KvUnified.AUTO),
    ],
)
def test_words_that_are_booleans_in_toml_may_be_written_so(
    tmp_path: Path, text: str, expected: KvUnified
) -> None:
    path = tmp_path / "file.toml"
    path.write_text(text)
    assert only(resolve(file=path)).kv_unified is expected


def test_a_file_that_does_not_exist_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        resolve(file=tmp_path / "absent.toml")


def test_other_programs_variables_are_left_alone() -> None:
    assert resolve(environ={"PORT": "1", "GPUFC_CONFIG": "x", "GPUFC_API_KEY": "k"}).config == (
        Config()
    )


@pytest.mark.parametrize(
    ("word", "meant"), [("strat", "start"), ("stat", "start"), ("chess", None), ("serve", None)]
)
def test_only_similar_words_are_offered(word: str, meant: str | None) -> None:
    assert settings.closest(word, ["start", "crashes", "restart", "doctor"]) == meant


def test_no_message_shows_a_name_of_pythons_types() -> None:
    for key in settings.keys().values():
        assert checking.wanted(key), key.name


def test_without_tables_there_is_one_model_of_the_default_name(toml: Path) -> None:
    found = resolve(file=toml)
    assert list(found.config.models) == [DEFAULT_MODEL]
    assert only(found).model is None


def test_without_tables_flags_mean_the_models_of_a_folder_too(toml: Path) -> None:
    flags = {"n_ctx": "200", "model": "mine", "model_path": "/m/mine.gguf", "models_dir": "/m"}
    config = resolve(flags, {"GPUFC_KV_CELLS": "700"}, toml).config
    of_folder = config.of_folder
    assert (of_folder.n_ctx, of_folder.kv_cells) == (200, 700)
    assert (of_folder.model, of_folder.model_path) == (None, None)
    assert config.models["default"].model_path == "/m/mine.gguf"


FABRIC = """
max_queue = 9
[fabric]
server_addr = "control.example"
control_port = 1700
client_id_file = "id"
share = "local"
network_tasks = 2
queue = 7
accept_models = true
"""


def test_the_keys_of_the_network_may_stand_in_a_table_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "fabric.toml"
    path.write_text(FABRIC)
    found = resolve({"control_port": "5"}, {"GPUFC_NETWORK_QUEUE": "8"}, path)
    fabric = found.config.fabric
    assert (fabric.server_addr, fabric.control_port) == ("control.example", 5)
    assert (fabric.network_share, fabric.network_tasks) == (NetworkShare.LOCAL, 2)
    assert (fabric.network_queue, fabric.network_connections) == (8, 64)
    assert (fabric.accept_models, fabric.client_id_file) == (True, "id")
    sources = {value.key.name: str(value.source) for value in found.values}
    assert sources["network_share"] == f"file {path} [fabric]"
    assert sources["max_queue"] == f"file {path}"


def test_every_key_of_the_network_has_one_short_name_in_its_table() -> None:
    names = [key.name for key in settings.keys().values() if key.of_network]
    short = [name.removeprefix("network_") for name in names]
    assert len(names) == len(set(short))
    assert not set(short) & (settings.keys().keys() - set(names))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[models.a]\nport = 1", ["port", "[models.a]", "before all tables"]),
        ("[models.a]\nn_ctxx = 1", ["unknown key n_ctxx", "[models.a]", "did you mean n_ctx?"]),
        (
            "plugins = [{ use = 'a', options = { t = 'sesame' }, x = 1 }]",
            ["bad value (hidden) for plugins"],
        ),
        ("[models.a]\nn_ctx = 'x'", ["bad value 'x' for n_ctx", "[models.a]"]),
        ("[models.a]\nmodel = 'b'", ["[models.a]", "write [models.b]"]),
        ("[models.a.b]\nn_ctx = 100", ["unknown key b", "[models.a]"]),
        ("[model]\nmodel = 'b'", ["[model]", "write [models.b]"]),
        ("[model]\nport = 1", ["port", "[model]", "before all tables"]),
        ("model = 'b'\n[models.a]", ["[models.a]", "leave the key out"]),
        ("[models]\nn_ctx = 1", ["[models.chat]"]),
        ("models = 1", ["[models.chat]"]),
        ('[models.""]', ["no name"]),
        ("[server]\nport = 1", ["unknown key server"]),
        ("fabric = 1", ["write [fabric]"]),
        ("[fabric]\nport = 1", ["port", "[fabric]", "before all tables"]),
        ("[fabric]\nn_ctx = 1", ["n_ctx", "[fabric]", "before all tables"]),
        ("[fabric]\ncontrol_prt = 1", ["[fabric]", "did you mean control_port?"]),
        ("[fabric]\nshare = 'all'", ["bad value 'all' for network_share", "[fabric]"]),
        ("control_port = 1\n[fabric]\ncontrol_port = 2", ["control_port", "leave one out"]),
        ("[fabric]\ntasks = 1\nnetwork_tasks = 2", ["network_tasks", "leave one out"]),
    ],
)
def test_a_wrong_table_is_named_with_its_reason(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        resolve(file=path)
    assert "\n" not in str(caught.value)
    for word in (*words, str(path)):
        assert word in str(caught.value)


def test_the_home_folder_is_expanded_in_every_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    paths = [key for key in settings.keys().values() if key.is_path]
    assert {key.name for key in paths} == {
        *("runtime_dir", "model_dirs", "model_path", "draft_model_path", "chat_template"),
        *("keys_file", "tls_cert", "tls_key", "tls_client_ca"),
        *("client_id_file", "cert_chain_path", "models_dir", "cluster_dir"),
        *("cells_credentials", "cells_tls_ca", "cells_tls_cert"),
    }
    file = tmp_path / "gpufc.toml"
    file.write_text('runtime_dir = "~/run"\n')
    found = resolve({"model_path": "~/m.gguf"}, {"GPUFC_MODEL_DIRS": "~/a:/b/~:~/c"}, file)
    assert found.config.server.runtime_dir == "/home/me/run"
    assert only(found).model_path == "/home/me/m.gguf"
    assert found.config.model_folders() == ["/home/me/a", "/b/~", "/home/me/c"]


def test_a_name_that_is_not_utf8_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"model_path \(flag --model-path\) is 'bad\\udcff.gguf'"):
        resolve({"model_path": "bad\udcff.gguf"})
    with pytest.raises(ConfigError, match=r"runtime_dir \(variable .* LC_ALL=C.UTF-8"):
        resolve({}, {"GPUFC_RUNTIME_DIR": "/\udcc3\udca9"})
    for name in ("ALIASES", "ALLOWED_HOSTS", "HOST", "MODEL", "FAKE_SCRIPT", "PLUGINS"):
        with pytest.raises(ConfigError, match=r"\(variable .* is 'a\\udcff', which is not valid"):
            resolve({}, {f"GPUFC_{name}": "a\udcff"})


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    file = tmp_path / "gpufc.toml"
    file.write_bytes(b"\xef\xbb\xbfport = 7\n")
    assert resolve(file=file).config.server.port == 7


def test_the_root_folder_is_no_folder_of_models_by_default() -> None:
    def folders(path: str) -> list[str]:
        return Config(models={"default": ModelConfig(model_path=path)}).model_folders()

    assert folders("/model.gguf") == []
    assert folders("/models/m.gguf") == ["/models"]
