"""A file that is exchanged between its check and its use, and files outside the allowed places."""

import hashlib
import os
from pathlib import Path

import pytest

from engine_worker.model_file import checked
from engine_worker.model_file.checked import checked_header
from engine_worker.model_file.gguf_header import GgufHeader, read_header
from engine_worker.model_file.opened import opened
from gpufc.config import ModelConfig
from gpufc.errors import ModelLoadError
from tests.engine_worker.model_file.gguf_files import gguf, pair, tensor, text, u32


def model(architecture: str, *pairs: bytes) -> bytes:
    """A file with one tensor, of 4 blocks of 34 bytes."""
    named = pair("general.architecture", 8, text(architecture))
    return gguf([named, *pairs], [tensor("w", (64, 2), 8, 0)], b"\1" * 136)


WANTED, OTHER = model("llama"), model("qwen3")


class Models:
    """`models/link.gguf` leads to `models/wanted.gguf`, and may lead to `outside/other.gguf`."""

    def __init__(self, folder: Path) -> None:
        self.allowed, self.outside = folder / "models", folder / "outside"
        for path in (self.allowed, self.outside):
            path.mkdir()
        self.wanted, self.other = self.allowed / "wanted.gguf", self.outside / "other.gguf"
        self.wanted.write_bytes(WANTED)
        self.other.write_bytes(OTHER)
        self.link = self.allowed / "link.gguf"
        self.link.symlink_to(self.wanted)

    def exchange(self) -> None:
        fresh = self.allowed / "fresh"
        fresh.symlink_to(self.other)
        fresh.rename(self.link)

    def header(self, path: Path, **pin: str) -> GgufHeader:
        within = [str(self.allowed.resolve())]
        return checked_header(ModelConfig(model_path=str(path), **pin), within)


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path)


def test_what_was_checked_is_what_is_loaded(models: Models) -> None:
    header = read_header(models.link)
    with opened(header.files) as (path,):
        models.exchange()
        assert Path(path).read_bytes() == WANTED
    assert not os.path.exists(path), "nothing stays open"


def test_a_link_that_changes_after_its_check_is_refused(models: Models) -> None:
    header = models.header(models.link)
    models.exchange()
    with pytest.raises(ModelLoadError, match=r"link\.gguf has changed"), opened(header.files):
        pass


def test_a_file_that_is_written_after_its_check_is_refused(models: Models) -> None:
    header = models.header(models.link)
    models.wanted.write_bytes(WANTED + b"\0")
    with pytest.raises(ModelLoadError, match="has changed"), opened(header.files):
        pass


def test_a_link_may_not_lead_out_of_the_allowed_places(models: Models) -> None:
    assert models.header(models.link).architecture == "llama"
    models.exchange()
    with pytest.raises(ModelLoadError, match="does not lie in an allowed folder"):
        models.header(models.link)
    assert checked_header(ModelConfig(model_path=str(models.link))).architecture == "qwen3"


def test_no_part_of_a_split_model_may_lie_elsewhere(models: Models) -> None:
    def part(number: int) -> bytes:
        return model("llama", pair("split.no", 4, u32(number)), pair("split.count", 4, u32(2)))

    first, second = (models.allowed / f"big-0000{n}-of-00002.gguf" for n in (1, 2))
    first.write_bytes(part(0))
    models.other.write_bytes(part(1))
    second.symlink_to(models.other)
    with pytest.raises(ModelLoadError, match=r"00002-of-00002\.gguf does not lie in"):
        models.header(first)


def test_a_pinned_file_that_changes_after_it_was_hashed_is_refused(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = hashlib.sha256(WANTED).hexdigest()
    assert models.header(models.link, model_sha256=pin).architecture == "llama"

    def read(path: Path) -> GgufHeader:
        models.wanted.write_bytes(OTHER)
        return read_header(path)

    monkeypatch.setattr(checked, "read_header", read)
    with pytest.raises(ModelLoadError, match="has changed"):
        models.header(models.link, model_sha256=pin)


def test_a_pinned_fifo_is_refused_and_not_waited_for(models: Models) -> None:
    path = models.allowed / "fifo.gguf"
    os.mkfifo(path)
    with pytest.raises(ModelLoadError):
        models.header(path, model_sha256="0" * 64)
