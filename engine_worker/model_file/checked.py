"""Every check of a model's files before llama.cpp opens them."""

from collections.abc import Sequence
from pathlib import Path

from engine_worker.model_file.checksum import require_checksum
from engine_worker.model_file.gguf_header import GgufHeader, read_header
from engine_worker.model_file.opened import require_unchanged, require_within
from engine_worker.model_file.purpose import require_served
from gpufc.config import ModelConfig
from gpufc.errors import ModelLoadError


def checked_header(config: ModelConfig, within: Sequence[str] = ()) -> GgufHeader:
    """The header of a model that may be loaded. `opened` gives the files that were checked here.

    A pinned file is parsed only if it has its checksum. `within` are the places that all files must
    lie in (`require_within`). Raises `ModelLoadError`.
    """
    if config.model_path is None:
        raise ModelLoadError("no model path")
    path = Path(config.model_path)
    pinned = None
    if config.model_sha256 is not None:
        pinned = require_checksum(path, config.model_sha256)
    header = read_header(path)
    require_within(header.files, within)
    if pinned is not None:
        require_unchanged(pinned, header.files[0])
    require_served(header, config.model_path)
    return header
