"""The fingerprint of a loaded model. Two workers with the same one compute the same logits, so a
replay may move between them."""

import hashlib
from collections.abc import Iterable

from engine_worker.model_file.gguf_header import GgufHeader
from gpufc.file_samples import add_samples


def fingerprint(header: GgufHeader, settings: Iterable[str]) -> str:
    """SHA-256 in hex over the files' sizes, the header, samples of the data, and `settings`.

    Of each file the first and last MiB and 16 blocks at even distances are read. To hash whole
    files of tens of gigabytes would take longer than to load them.
    """
    digest = hashlib.sha256(repr(tuple(settings)).encode())
    for number, part in enumerate(header.parts):
        add_samples(digest, part, header.header_bytes if number == 0 else 0)
    return digest.hexdigest()
