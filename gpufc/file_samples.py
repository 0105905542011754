"""The digest of a large file's size and samples: two files with an equal one hold the same model.

It says that no file has been replaced by another one, in milliseconds. It does not say that each
byte is right; a checksum of the whole file does.
"""

import hashlib
from pathlib import Path

EDGE_BYTES = 1 << 20
BLOCK_BYTES = 64 << 10
N_BLOCKS = 16


def sample_digest(path: Path) -> str:
    """SHA-256 in hex over the size and samples of one file. Raises `OSError`."""
    digest = hashlib.sha256()
    add_samples(digest, path)
    return digest.hexdigest()


def add_samples(digest: "hashlib._Hash", path: Path, least_bytes: int = 0) -> None:
    """Add a file's size, its first and last MiB, and 16 blocks at even distances. `least_bytes` of
    its beginning are read in any case. Raises `OSError`."""
    size = path.stat().st_size
    digest.update(b"%d" % size)
    with path.open("rb") as file:
        digest.update(file.read(max(EDGE_BYTES, least_bytes)))
        for block in range(1, N_BLOCKS + 1):
            file.seek(size * block // (N_BLOCKS + 1))
            digest.update(file.read(BLOCK_BYTES))
        file.seek(max(0, size - EDGE_BYTES))
        digest.update(file.read(EDGE_BYTES))
