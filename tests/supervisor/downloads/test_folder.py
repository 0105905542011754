"""The folder of models: names, parts, removal."""

from pathlib import Path

import pytest

from gpufc.errors import ConfigError
from supervisor.downloads.folder import find, models, remove


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("one.gguf", "big-00001-of-00002.gguf", "big-00002-of-00002.gguf"):
        (folder / name).write_bytes(b"GGUF")
    (tmp_path / "outside.gguf").write_bytes(b"GGUF")
    return folder


def test_models_are_found_by_name(place: Path) -> None:
    assert [one.name for one in models(place)] == ["big-00001-of-00002.gguf", "one.gguf"]
    assert find("one", place) == find("one.gguf", place) == place / "one.gguf"
    assert find("big", place) == place / "big-00001-of-00002.gguf"
    assert find("../outside", place) is None
    (place / "loud.GGUF").write_bytes(b"GGUF")
    assert find("loud", place) == find("loud.GGUF", place) == place / "loud.GGUF"
    assert place / "loud.GGUF" in models(place)
    assert models(place / "none") == []


def test_a_model_goes_with_all_its_parts(place: Path) -> None:
    assert remove("big", place) == 8
    assert [one.name for one in place.iterdir()] == ["one.gguf"]


def test_a_cut_download_can_be_removed(place: Path) -> None:
    (place / "two.gguf.part").write_bytes(b"x" * 7)
    (place / "two.gguf.part.json").write_text("{}")
    assert remove("two", place) == 7
    assert not list(place.glob("two*"))


@pytest.mark.parametrize("name", ["../outside", "../outside.gguf", "none", "/etc/passwd"])
def test_nothing_outside_the_folder_is_removed(place: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="there is no model"):
        remove(name, place)
    assert (place.parent / "outside.gguf").exists()


def test_a_link_is_removed_and_not_its_target(place: Path) -> None:
    (place / "link.gguf").symlink_to(place.parent / "outside.gguf")
    assert remove("link", place) == 0
    assert (place.parent / "outside.gguf").exists()
