"""A LoRA adapter for a tiny model, and the same model with the adapter merged into its weights."""

from pathlib import Path

import gguf
import numpy as np

RANK, ALPHA = 4, 8.0
TARGETS = ("attn_q", "attn_v", "ffn_down")


def write_adapter(base: Path, path: Path, seed: int) -> None:
    """Write an adapter of random matrices that changes the text, in llama.cpp's form."""
    reader = gguf.GGUFReader(base)
    writer = gguf.GGUFWriter(path, _architecture(reader))
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    random = np.random.default_rng(seed)
    for tensor in reader.tensors:
        if _is_target(tensor.name):
            n_in, n_out = (int(size) for size in tensor.shape)
            down = random.standard_normal((RANK, n_in)) / n_in**0.5
            up = random.standard_normal((n_out, RANK)) * 0.5
            writer.add_tensor(f"{tensor.name}.lora_a", down.astype(np.float32))
            writer.add_tensor(f"{tensor.name}.lora_b", up.astype(np.float32))
    _close(writer)


def write_merged(base: Path, path: Path, adapters: dict[Path, float]) -> None:
    """Write the model with each adapter's product added to its weights, at its scale."""
    reader = gguf.GGUFReader(base)
    writer = copied(reader, path)
    changes: dict[str, np.ndarray] = {}
    for adapter, scale in adapters.items():
        parts = {tensor.name: tensor.data for tensor in gguf.GGUFReader(adapter).tensors}
        for name in {part.rpartition(".lora_")[0] for part in parts}:
            product = parts[f"{name}.lora_b"] @ parts[f"{name}.lora_a"]
            changes[name] = changes.get(name, 0) + scale * ALPHA / RANK * product
    for tensor in reader.tensors:
        numbers = tensor.data
        if tensor.name in changes:
            numbers = numbers.astype(np.float32) + changes[tensor.name].astype(np.float32)
        writer.add_tensor(tensor.name, numbers)
    _close(writer)


def copied(reader: gguf.GGUFReader, path: Path) -> gguf.GGUFWriter:
    """The beginning of a model with the same keys and no tensors yet."""
    writer = gguf.GGUFWriter(path, _architecture(reader))
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != gguf.Keys.General.ARCHITECTURE:
            inner = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], inner)
    return writer


def _is_target(name: str) -> bool:
    return any(name.endswith(f".{target}.weight") for target in TARGETS)


def _architecture(reader: gguf.GGUFReader) -> str:
    field = reader.get_field(gguf.Keys.General.ARCHITECTURE)
    assert field is not None
    return str(field.contents())


def _close(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
