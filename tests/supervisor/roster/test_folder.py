"""Files that appear, change and vanish in a folder of models."""

import os
from pathlib import Path

import pytest

from supervisor.roster.folder import Changes, Folder, Found, name_of, scan

A1, A2 = Found(Path("/m/a.gguf"), (1, 10, 1)), Found(Path("/m/a.gguf"), (2, 20, 2))
B = Found(Path("/m/b.gguf"), (3, 30, 3))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("tiny.gguf", "tiny"),
        ("Tiny.Q4_K_M.GGUF", "Tiny.Q4_K_M"),
        ("org/tiny.gguf", "org/tiny"),
        ("big-00001-of-00003.gguf", "big"),
        ("big-00002-of-00003.gguf", None),
        ("mmproj-tiny.gguf", None),
        ("tiny.mmproj.gguf", None),
        ("notes.txt", None),
        ("tiny.gguf.part", None),
        (".hidden.gguf", None),
    ],
)
def test_a_file_is_served_under_its_name(path: str, name: str | None) -> None:
    assert name_of(Path(path)) == name


def test_all_files_of_the_first_look_count() -> None:
    folder = Folder()
    assert folder.look({"a": A1, "b": B}, is_first=True) == Changes(new=("a", "b"))
    assert folder.look({"a": A1, "b": B}) == Changes()


def test_a_new_file_counts_once_it_is_still() -> None:
    folder = Folder()
    folder.look({}, is_first=True)
    assert folder.look({"a": A1}) == Changes()
    assert folder.look({"a": A2}) == Changes()  # it was still being copied
    assert folder.look({"a": A2}) == Changes(new=("a",))
    assert folder.files == {"a": A2}


def test_a_changed_file_counts_once_it_is_still() -> None:
    folder = Folder()
    folder.look({"a": A1}, is_first=True)
    assert folder.look({"a": A2}) == Changes()
    assert folder.look({"a": A2}) == Changes(changed=("a",))


def test_a_vanished_file_counts_at_once_and_may_come_back() -> None:
    folder = Folder()
    folder.look({"a": A1, "b": B}, is_first=True)
    assert folder.look({"b": B}) == Changes(gone=("a",))
    assert folder.look({"a": A1, "b": B}) == Changes()
    assert folder.look({"a": A1, "b": B}) == Changes(new=("a",))


def test_a_scan_finds_models_in_subfolders_and_through_links(tmp_path: Path) -> None:
    models, elsewhere = tmp_path / "models", tmp_path / "elsewhere"
    for folder in (models / "org", models / ".cache", elsewhere):
        folder.mkdir(parents=True)
    for path in (models / "a.gguf", models / "org" / "b.gguf", models / ".cache" / "c.gguf"):
        path.write_bytes(b"GGUF")
    (elsewhere / "d.gguf").write_bytes(b"GGUF")
    (models / "linked").symlink_to(elsewhere)
    (models / "gone.gguf").symlink_to(tmp_path / "nothing")
    (models / "endless.gguf").symlink_to("/dev/zero")
    os.mkfifo(models / "pipe.gguf")
    (models / os.fsdecode(b"\xff.gguf")).write_bytes(b"GGUF")
    assert list(scan(models)) == ["a", "linked/d", "org/b"]
    assert scan(models)["a"].stamp[1] == 4


def test_a_scan_of_a_ring_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "ring").symlink_to(tmp_path)
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    assert "a" in scan(tmp_path)


def test_a_folder_that_cannot_be_read_is_no_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        scan(tmp_path / "nothing")
