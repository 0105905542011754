"""Headers of models that exist in tests only."""

from engine_worker.model_file.gguf_header import GgufHeader
from engine_worker.model_file.gguf_reader import Value


def header(
    tensor_bytes: dict[str, int] | None = None,
    *,
    state_layers: frozenset[int] = frozenset(),
    key_layers: frozenset[int] = frozenset(),
    architecture: str = "llama",
    **metadata: Value,
) -> GgufHeader:
    """`attention__head_count` stands for `llama.attention.head_count`."""
    named = {f"{architecture}.{key.replace('__', '.')}": value for key, value in metadata.items()}
    return GgufHeader(
        metadata={"general.architecture": architecture, **named},
        n_tensors=1,
        tensor_bytes=tensor_bytes or {},
        header_bytes=0,
        files=(),
        state_layers=state_layers,
        key_layers=key_layers,
    )
