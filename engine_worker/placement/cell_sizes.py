"""The memory of one token in a KV cache: arithmetic on a header.

llama.cpp's `llama_model::create_memory` chooses the cache of an architecture. Beside keys and
values there are these: a latent cache has no values (MLA), an indexer has keys of its own by which
it chooses the cells that queries attend to, and a compressed cache has a cell for several tokens.
"""

from collections.abc import Sequence

from engine_worker.model_file.gguf_header import COMPRESSED, GgufHeader
from gpufc.config import KvType

BLOCK = 32
"""The numbers that a packed cache type stores together."""

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

ONE_MIXER = frozenset({"nemotron_h", "nemotron_h_moe"})
"""Architectures of which a layer has a state, or attention, or a feed-forward network alone."""

DRAFTING = frozenset(
    {
        *("bailingmoe2", "cohere2moe", "deepseek2", "deepseek32", "dots3note", "exaone-moe"),
        *("exaone4", "glm-dsa", "glm4", "glm4moe", "glm5-next", "hy_v3", "mimo2"),
        *("qwen3next", "qwen35", "qwen35moe", "step35"),
    }
)
"""Architectures whose last layers may draft further tokens. A context that does not draft makes no
cells for them."""

INDEXED_RATIO = 4
"""DeepSeek 4 has an indexer for the layers that compress so many tokens into a cell."""


def cell_bytes(
    header: GgufHeader, kv_heads: Sequence[int], type_k: KvType, type_v: KvType, *, padded: bool
) -> tuple[int, ...]:
    """The bytes of one token in each layer; 0 for a layer without a cache.

    `padded`: every layer has as many values as the one with the most (`n_embd_v_gqa_max`).
    """
    key, value = _head_sizes(header)
    is_latent = _is_latent(header)
    no_cells = _without_cells(header, len(kv_heads))
    most = max(kv_heads, default=0)
    found = []
    for layer, n_heads in enumerate(kv_heads):
        n_kept = most if padded and (n_heads or not header.state_layers) else n_heads
        n_values = 0 if is_latent else n_kept * value
        own = packed(n_heads * key, type_k) + packed(n_values, type_v)
        found.append(0 if layer in no_cells else own + _beside(header, layer, type_k, type_v))
    return tuple(found)


def _without_cells(header: GgufHeader, n_layers: int) -> frozenset[int]:
    """The layers for which llama.cpp makes no cells, whatever heads the header gives them."""
    arch = header.architecture
    found = header.state_layers - header.key_layers
    if arch in ONE_MIXER:
        widths = header.per_layer(f"{arch}.feed_forward_length", n_layers, 0)
        found |= {layer for layer, width in enumerate(widths) if width}
    n_drafting = header.number(f"{arch}.nextn_predict_layers")
    if arch in DRAFTING and n_drafting < n_layers:
        found |= frozenset(range(n_layers - n_drafting, n_layers))
    return found


def compressed_caches(
    header: GgufHeader, layer: int, type_k: KvType
) -> tuple[tuple[int, int], ...]:
    """The compressed caches of a layer: the tokens of one cell, and its bytes."""
    arch = header.architecture
    ratio = _ratio(header, layer)
    if arch not in COMPRESSED or not ratio:
        return ()
    own = packed(_head_sizes(header)[0], type_k)
    if ratio != INDEXED_RATIO:
        return ((ratio, own),)
    index = packed(header.number(f"{arch}.attention.indexer.key_length"), type_k)
    return ((ratio, own), (ratio, index))


def packed(n_numbers: int, kind: KvType) -> int:
    """The bytes of so many numbers."""
    return n_numbers * _BLOCK_BYTES[kind] // BLOCK


def _head_sizes(header: GgufHeader) -> tuple[int, int]:
    """The numbers of a key and of a value of one head; those of layers with a window may differ."""
    arch = f"{header.architecture}.attention"
    n_heads = max(header.per_layer(f"{arch}.head_count", 1, 0), default=0)
    usual = header.number(f"{header.architecture}.embedding_length") // max(1, n_heads)
    key, value = (
        max(header.number(f"{arch}.{one}_length", usual), header.number(f"{arch}.{one}_length_swa"))
        for one in ("key", "value")
    )
    return key, value


def _is_latent(header: GgufHeader) -> bool:
    """Whether values are computed from the keys, so that only these are kept."""
    arch = f"{header.architecture}.attention"
    lengths = (header.number(f"{arch}.{one}_length_mla") for one in ("key", "value"))
    return all(lengths) or header.architecture in COMPRESSED


def _beside(header: GgufHeader, layer: int, type_k: KvType, type_v: KvType) -> int:
    """The bytes of one token beside its own keys and values: of an indexer, compressed."""
    if header.architecture in COMPRESSED:
        caches = compressed_caches(header, layer, type_k)
        return sum(-(-n_bytes // ratio) for ratio, n_bytes in caches)
    if layer not in header.indexer_layers:
        return 0
    arch = f"{header.architecture}.attention"
    # with pools, an indexer keeps key, gate and pooled value
    n_keys = 3 if header.number(f"{arch}.indexer.kpool") else 1
    index = packed(n_keys * header.number(f"{arch}.indexer.key_length"), type_k)
    if _is_latent(header) or header.state_layers:
        return index
    return index + packed(_head_sizes(header)[1], type_v)  # never used, but there


def _ratio(header: GgufHeader, layer: int) -> int:
    key = f"{header.architecture}.attention.compress_ratios"
    ratios = header.per_layer(key, layer + 1, 0)
    return ratios[layer] if layer < len(ratios) else 0
