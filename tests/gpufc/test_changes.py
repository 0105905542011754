"""Differences of configurations, and which of them a reload brings about."""

from pathlib import Path
from typing import Any

import pytest

from gpufc import settings
from gpufc.changes import changes, refusal, rows
from gpufc.config import Config, LimitsConfig
from gpufc.config.live import own, write
from gpufc.config.marks import Reload


def values(**flags: Any) -> tuple[settings.Value, ...]:
    return settings.resolve(flags=flags, environ={}, file=None).values


def from_file(path: Path, text: str) -> tuple[settings.Value, ...]:
    path.write_text(text)
    return settings.resolve(flags={}, environ={}, file=path).values


def test_a_change_shows_both_values_and_the_source(tmp_path: Path) -> None:
    file = tmp_path / "gpufc.toml"
    found = changes(values(), from_file(file, "max_queue = 7\nspecial_tokens_in_content = true"))
    assert [str(change) for change in found] == [
        f"special_tokens_in_content: false → true (file {file})",
        f"max_queue: default → 7 (file {file})",
    ]
    assert [(row["key"], row["takes_effect"]) for row in rows(found)] == [
        ("special_tokens_in_content", "swap"),
        ("max_queue", "now"),
    ]


def test_the_same_value_from_another_place_is_no_change(tmp_path: Path) -> None:
    same = from_file(tmp_path / "gpufc.toml", "port = 8082")
    assert changes(values(), same) == ()
    assert refusal(values(), same) is None


def test_a_change_that_needs_more_than_a_reload_is_refused_with_all_that_was_wanted(
    tmp_path: Path,
) -> None:
    file = tmp_path / "gpufc.toml"
    wanted = from_file(file, "port = 9000\nhost = '::1'\nmax_queue = 7")
    assert refusal(values(), wanted) == (
        "host, port cannot change while this front runs, but `stop` and `start` changes it."
        f" Wanted: host: 127.0.0.1 → ::1 (file {file}), port: 8082 → 9000 (file {file}),"
        f" max_queue: default → 7 (file {file})."
    )
    upgrade = refusal(values(), from_file(file, "restart_limit = 3"))
    assert upgrade is not None
    assert "`upgrade` changes it" in upgrade


def test_a_file_that_would_rename_the_model_is_refused_unless_it_has_a_name(
    tmp_path: Path,
) -> None:
    file = tmp_path / "gpufc.toml"
    before = from_file(file, "model_path = 'a.gguf'")
    reason = refusal(before, from_file(file, "model_path = 'b.gguf'"))
    assert reason is not None
    assert "`swap` keeps the" in reason
    named = from_file(file, "model_path = 'a.gguf'\nmodel = 'm'")
    assert refusal(named, from_file(file, "model_path = 'b.gguf'\nmodel = 'm'")) is None


def test_a_table_that_comes_or_goes_is_refused(tmp_path: Path) -> None:
    wanted = from_file(tmp_path / "gpufc.toml", "[models.chat]\nmodel_path = 'x.gguf'")
    reason = refusal(values(), wanted)
    assert reason is not None
    assert "(chat, default)" in reason


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    key = settings.Key(
        **{
            field: getattr(settings.keys()["keys_file"], field)
            for field in settings.Key.__struct_fields__
        }
        | {"is_secret": True, "reload": Reload.NOW}
    )
    pair = [
        settings.Value(key, secret, settings.Source(settings.Origin.FILE, "F")) for secret in "ab"
    ]
    (change,) = changes(pair[:1], pair[1:])
    assert str(change) == "keys_file: (hidden) → (hidden) (file F)"
    assert rows([change])[0]["after"] == "(hidden)"


def test_every_key_of_the_limits_is_hot_or_says_what_it_needs() -> None:
    marked = {key.name: key.reload for key in settings.keys().values()}
    assert marked["max_body_bytes"] is Reload.NOW
    assert marked["n_ctx"] is Reload.SWAP
    assert marked["max_connections"] is Reload.UPGRADE
    assert marked["port"] is Reload.START


def test_a_write_reaches_all_that_share_the_section_and_no_other_configuration() -> None:
    default = Config()
    config = own(default)
    shared = config.limits
    write(config, Config(limits=LimitsConfig(max_n=3, max_stop=1)), [("limits", "max_n")])
    assert (shared.max_n, shared.max_stop) == (3, 16)
    assert default.limits.max_n == Config().limits.max_n == 8
