"""A pinned model file is loaded as it was named, or not at all."""

import hashlib
from pathlib import Path

import pytest

from engine_worker.model_file.checked import checked_header
from engine_worker.model_file.checksum import require_checksum
from gpufc.config import ModelConfig
from gpufc.errors import ModelLoadError


def test_only_the_named_file_passes(tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(b"GGUF" * 1000)
    pin = hashlib.sha256(model.read_bytes()).hexdigest()
    require_checksum(model, pin)
    model.write_bytes(b"GGUF" * 999 + b"GGUg")
    with pytest.raises(ModelLoadError, match="not the one of `model_sha256`"):
        require_checksum(model, pin)
    with pytest.raises(ModelLoadError, match="does not exist"):
        require_checksum(tmp_path / "absent", pin)


def test_a_file_that_is_not_pinned_reaches_no_parser(tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(b"another")
    config = ModelConfig(model_path=str(model), model_sha256="0" * 64)
    with pytest.raises(ModelLoadError, match="SHA-256"):
        checked_header(config)
