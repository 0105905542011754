"""Whether a model file is the one that the operator has named."""

import hashlib
from pathlib import Path

from gpufc.errors import ModelLoadError


def require_checksum(path: Path, wanted: str) -> None:
    """Raises `ModelLoadError` for a file with another SHA-256. Reads all of it, which takes about a
    second for each gigabyte."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise ModelLoadError(f"{path} cannot be read: {err.strerror or err}") from err
    if found != wanted:
        raise ModelLoadError(f"{path} has the SHA-256 {found}, not the one of `model_sha256`")
