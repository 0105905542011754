"""Whether a model file is the one that the operator has named."""

import hashlib
from pathlib import Path

from engine_worker.model_file.opened import ModelFile, open_model_file
from gpufc.errors import ModelLoadError


def require_checksum(path: Path, wanted: str) -> ModelFile:
    """The file, whose SHA-256 is the wanted one. Raises `ModelLoadError` for another. Reads all of
    it, which takes about a second for each gigabyte."""
    try:
        with open(open_model_file(path), "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            seen = ModelFile.behind(path, file.fileno())
    except OSError as err:
        raise ModelLoadError(f"{path} cannot be read: {err.strerror or err}") from err
    if found != wanted:
        raise ModelLoadError(f"{path} has the SHA-256 {found}, not the one of `model_sha256`")
    return seen
