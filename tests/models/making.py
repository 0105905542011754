"""Writes tiny models as GGUF files, each once for each content of this package."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGUFValueType

from tests.models.families import FAMILIES, OTHERS, Family
from tests.models.rare import RARE

ARRAY = GGUFValueType.ARRAY

_PACKED = {"matrix", "embedding", "small", "tiny"}
"""Fills that are stored in half precision."""


def made(name: str) -> Path:
    """The file of the model `name`, made at the first call on this machine."""
    folder = Path(tempfile.gettempdir()) / f"gpufc-test-models-{os.getuid()}-{_version()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{name}.gguf"
    if not path.exists():
        unfinished = path.with_suffix(f".{os.getpid()}")
        _write(unfinished, (FAMILIES | OTHERS | RARE)[name]())
        unfinished.replace(path)
    return path


@cache
def _version() -> str:
    """A digest of the modules that determine a file's content."""
    digest = hashlib.sha256()
    for module in sorted(Path(__file__).parent.glob("[!_]*.py")):
        if not module.name.startswith("test_"):
            digest.update(module.read_bytes())
    return digest.hexdigest()[:16]


def _write(path: Path, family: Family) -> None:
    keys = {f"{family.architecture}.{key}": value for key, value in family.keys.items()}
    random = np.random.default_rng(1)
    tensors = {
        name: fill(how, sizes, random).astype(np.float16 if how in _PACKED else np.float32)
        for name, sizes, how in family.tensors
    }
    write(path, family.architecture, keys | family.vocabulary, tensors)


def write(
    path: Path, architecture: str, keys: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> None:
    """A GGUF file with these keys and tensors."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in keys.items():
        _add(writer, key, value)
    for name, numbers in tensors.items():
        writer.add_tensor(name, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case list():
            writer.add_array(key, value)
        case tuple():
            writer.add_key_value(key, value, ARRAY, sub_type=GGUFValueType.UINT64)
        case _:
            raise TypeError(f"{key}: {type(value)}")


def fill(how: str, sizes: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Random numbers for one tensor, of such variance that a token depends on its whole context."""
    noise = random.standard_normal(sizes[::-1], np.float32)
    spread = noise / np.float32(sizes[0]) ** 0.5
    fills = {
        "norm": 1 + 0.1 * noise,
        "scale": 2 + 0.1 * noise,
        "loud": 16 + noise,
        "bias": 0.2 * noise,
        "matrix": 1.5 * spread,
        "router": 1.5 * spread,
        "embedding": 0.3 * noise,
        "small": 0.1 * noise,
        "tiny": 0.1 / 8 * noise,
        "convolution": spread,
        "half": 0.5 + 0.1 * noise,
        "step": noise - 2.5,
        "decay": -np.exp(0.5 * noise),
        "long factors": np.linspace(1.5, 30, sizes[0]),
        "short factors": np.linspace(1, 2, sizes[0]),
    }
    return fills[how]
