"""The fingerprint of a loaded model. Two workers with the same one compute the same logits, so a
replay may move between them."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from engine_worker.model_file.gguf_header import GgufHeader

EDGE_BYTES = 1 << 20
BLOCK_BYTES = 64 << 10
N_BLOCKS = 16


def fingerprint(header: GgufHeader, settings: Iterable[str]) -> str:
    """SHA-256 in hex over the files' sizes, the header, samples of the data, and `settings`.

    Of each file the first and last MiB and 16 blocks at even distances are read. To hash whole
    files of tens of gigabytes would take longer than to load them.
    """
    digest = hashlib.sha256(repr(tuple(settings)).encode())
    for number, part in enumerate(header.parts):
        _sample(digest, part, header.header_bytes if number == 0 else 0)
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 in hex over the size and samples of one file."""
    digest = hashlib.sha256()
    _sample(digest, path, 0)
    return digest.hexdigest()


def _sample(digest: "hashlib._Hash", path: Path, header_bytes: int) -> None:
    size = path.stat().st_size
    digest.update(b"%d" % size)
    with path.open("rb") as file:
        digest.update(file.read(max(EDGE_BYTES, header_bytes)))
        for block in range(1, N_BLOCKS + 1):
            file.seek(size * block // (N_BLOCKS + 1))
            digest.update(file.read(BLOCK_BYTES))
        file.seek(max(0, size - EDGE_BYTES))
        digest.update(file.read(EDGE_BYTES))
