"""Model files that cannot be served, made from one that can."""

import struct
from pathlib import Path

from engine_worker.model_file.gguf_header import read_header


def truncated(model: Path, folder: Path) -> Path:
    """Its first half."""
    data = model.read_bytes()
    target = folder / "truncated.gguf"
    target.write_bytes(data[: len(data) // 2])
    return target


def not_a_number(model: Path, folder: Path, tensor: str = "output_norm.weight") -> Path:
    """The same with one float32 tensor full of NaN: it loads, and every logit is NaN."""
    data = bytearray(model.read_bytes())
    name = struct.pack("<Q", len(tensor)) + tensor.encode()
    at = data.index(name) + len(name)
    (n_dims,) = struct.unpack_from("<I", data, at)
    dims = struct.unpack_from(f"<{n_dims}Q", data, at + 4)
    kind, offset = struct.unpack_from("<IQ", data, at + 4 + 8 * n_dims)
    if (n_dims, kind) != (1, 0):
        raise ValueError(f"{tensor} is not a float32 vector")
    start = read_header(model).header_bytes + offset
    data[start : start + 4 * dims[0]] = struct.pack("<f", float("nan")) * dims[0]
    target = folder / "not-a-number.gguf"
    target.write_bytes(data)
    return target
