"""What is sent to a host is the file that was checked, whatever its name leads to by then."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpufc.config import ModelConfig
from supervisor.downloads.checksums import Checksums
from supervisor.remote.sources import Replaced, Source, described

SECRET, MODEL = b"secret" * 1000, b"models" * 1000


class Within(tuple[str, ...]):
    """Allowed folders. While they are looked through, something happens to the file."""

    happens: Callable[[], None]

    def __iter__(self) -> Iterator[str]:
        self.happens()
        return super().__iter__()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "m.gguf").write_bytes(MODEL)
    (tmp_path / "secret").write_bytes(SECRET)
    for path in (folder / "m.gguf", tmp_path / "secret"):
        os.utime(path, ns=(1, 1))
    return folder


def read(source: Source) -> bytes:
    with source.opened() as fd:
        return os.pread(fd, 1 << 20, 0)


def links_to(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize("is_link", [False, True])
def test_a_name_that_becomes_a_link_while_it_is_checked_leads_nowhere(
    models: Path, is_link: bool
) -> None:
    path, secret = models / "m.gguf", models.parent / "secret"
    if is_link:
        path.rename(models / "real.gguf")
        path.symlink_to(models / "real.gguf")
    within = Within([str(models.resolve())])
    within.happens = lambda: links_to(path, secret)
    sums = Checksums(None)
    (wanted,), sources = described(sums, ModelConfig(model_path=str(path)), within)
    assert wanted.parts[0].sample != sums.sample(secret)
    if is_link:
        assert read(sources[1]) == MODEL  # by its own name, which is still the same file's
    else:
        with pytest.raises(Replaced, match="it has changed at the front"):
            read(sources[1])


def test_a_folder_on_the_way_that_becomes_a_link_leads_nowhere(models: Path) -> None:
    path, others = models / "m.gguf", models.parent / "others"
    others.mkdir()
    (others / "m.gguf").write_bytes(SECRET)
    os.utime(others / "m.gguf", ns=(1, 1))
    _, sources = described(
        Checksums(None), ModelConfig(model_path=str(path)), [str(models.resolve())]
    )
    models.rename(models.parent / "away")
    models.symlink_to(others)
    with pytest.raises(Replaced):
        read(sources[1])


def test_a_file_that_was_written_to_is_another_one(models: Path) -> None:
    path = models / "m.gguf"
    _, sources = described(Checksums(None), ModelConfig(model_path=str(path)), ())
    assert read(sources[1]) == MODEL
    os.utime(path, ns=(1, 2))
    with pytest.raises(Replaced):
        read(sources[1])


def test_a_name_that_becomes_a_fifo_holds_up_nothing(models: Path) -> None:
    path = models / "m.gguf"
    _, sources = described(Checksums(None), ModelConfig(model_path=str(path)), ())
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="is not a file"):
        read(sources[1])
