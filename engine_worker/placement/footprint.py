"""What a model takes in memory, layer by layer: arithmetic on its header.

The last layers are those that go to a GPU, and with the first of them the output layer; the input
embeddings stay on the host. So llama.cpp's `llama_model::load_tensors` has it.
"""

from msgspec import Struct

from engine_worker.model_file.gguf_header import GgufHeader
from gpufc.config import KvType

MAX_LAYERS = 65_536

BLOCK = 32
"""Numbers that all cache types but the plain ones pack together."""

_BLOCK_BYTES = {
    KvType.F32: 128,
    KvType.F16: 64,
    KvType.BF16: 64,
    KvType.Q8_0: 34,
    KvType.Q5_1: 24,
    KvType.Q5_0: 22,
    KvType.Q4_1: 20,
    KvType.Q4_0: 18,
}
"""ggml/src/ggml.c, type_traits."""


class Footprint(Struct, frozen=True, kw_only=True):
    """Bytes by layer, the one nearest to the input first.

    `cell_bytes` are those of one token's keys and values: an upper bound for models that compress
    them (MLA) or keep none in some layers. `n_heads` is the most query heads that a layer has.
    """

    layer_bytes: tuple[int, ...]
    output_bytes: int
    cell_bytes: tuple[int, ...]
    n_heads: int

    @property
    def n_layers(self) -> int:
        return len(self.layer_bytes)

    @property
    def bytes_per_cell(self) -> int:
        """Of one token over all layers; at least 1."""
        return max(1, sum(self.cell_bytes))

    def device_bytes(self, n_layers: int) -> int:
        """Weights on GPUs when so many layers are."""
        if not n_layers:
            return 0
        return self.output_bytes + sum(self.layer_bytes[-n_layers:])

    def device_cell_bytes(self, n_layers: int) -> int:
        """Of one token's cell, what lies on GPUs when so many layers do."""
        return sum(self.cell_bytes[-n_layers:]) if n_layers else 0

    def score_bytes(self, batch_tokens: int, *, flash: bool) -> int:
        """Compute buffer for each cell that a token attends to, a step having `batch_tokens`.

        With flash attention it holds a mask of two bytes; without it one of four, for each head a
        score, and that score's copy in half precision. Read from llama.cpp's reserved buffers;
        that copy is a GPU's.
        """
        return batch_tokens * (2 if flash else 4 + 6 * self.n_heads)


def footprint(
    header: GgufHeader, type_k: KvType = KvType.F16, type_v: KvType = KvType.F16
) -> Footprint:
    """That of a model whose cache has keys and values of these types."""
    arch = header.architecture
    n_layers = min(header.number(f"{arch}.block_count"), MAX_LAYERS)
    heads = header.per_layer(f"{arch}.attention.head_count", max(1, n_layers), 1)
    n_heads = max(1, *heads) if heads else 1
    kv_heads = header.per_layer(f"{arch}.attention.head_count_kv", n_layers, n_heads)
    head_dim = header.number(f"{arch}.embedding_length") // n_heads
    key = header.number(f"{arch}.attention.key_length", head_dim)
    value = header.number(f"{arch}.attention.value_length", head_dim)
    sizes = header.tensor_bytes
    return Footprint(
        layer_bytes=tuple(sizes.get(f"blk.{layer}", 0) for layer in range(n_layers)),
        # where there is none, the embeddings are the output too, and a GPU gets a copy
        output_bytes=sizes.get("output_norm", 0) + sizes.get("output", sizes.get("token_embd", 0)),
        cell_bytes=tuple(
            _packed(n * key, type_k) + _packed(n * value, type_v) for n in kv_heads[:n_layers]
        ),
        n_heads=n_heads,
    )


def _packed(n_numbers: int, kind: KvType) -> int:
    return n_numbers * _BLOCK_BYTES[kind] // BLOCK
