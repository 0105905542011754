"""The memory of a sequence that does not grow with it: arithmetic on a header.

A recurrent layer keeps one state of fixed size for each sequence, in place of a cell for each
token: the last inputs of its convolution, and its memory. llama.cpp's `llama_hparams::n_embd_r` and
`n_embd_s` give the sizes; both are stored as 32-bit floats. A compressed cache keeps the last
tokens as they are (`llama_kv_cache_dsv4`).
"""

from engine_worker.model_file.gguf_header import LIGHTNING, GgufHeader
from engine_worker.placement.cell_sizes import BLOCK, INDEXED_RATIO, compressed_caches, packed
from engine_worker.placement.cells import GRANULE
from gpufc.config import KvType

_NUMBER_BYTES = 4


def state_bytes(header: GgufHeader, n_layers: int, type_k: KvType) -> tuple[int, ...]:
    """The bytes of one sequence's state in each layer; 0 for a layer without one."""
    one = _inputs(header) + _memory(header)
    return tuple(
        _NUMBER_BYTES * (one + _n_grams(header, layer))
        if layer in header.state_layers
        else _compressed(header, layer, type_k)
        for layer in range(n_layers)
    )


def _compressed(header: GgufHeader, layer: int, type_k: KvType) -> int:
    """The bytes of the tokens that are not compressed yet, with their weights, and of the cells by
    which llama.cpp rounds a compressed cache up."""
    taken = 0
    for ratio, cell in compressed_caches(header, layer, type_k):
        n_numbers = cell * BLOCK // packed(BLOCK, type_k)
        # windows of the indexed kind overlap: twice the tokens of twice the numbers
        times = 4 if ratio == INDEXED_RATIO else 1
        taken += GRANULE * cell + 2 * _NUMBER_BYTES * times * ratio * n_numbers
    return taken


def _n_grams(header: GgufHeader, layer: int) -> int:
    """The numbers of the convolution over embeddings of n-grams (`ple_conv_state`)."""
    arch = header.architecture
    if layer not in header.per_layer(f"{arch}.ple.layers", 0, 0):
        return 0
    kept = max(0, header.number(f"{arch}.ple.conv_kernel") - 1)
    n_streams = header.number(f"{arch}.hyper_connection.count")
    width = n_streams * header.number(f"{arch}.embedding_length")
    return kept * header.number(f"{arch}.ple.ngram_size") * width


def _inputs(header: GgufHeader) -> int:
    """The numbers that a layer keeps of its last inputs."""
    arch, width = header.architecture, header.number(f"{header.architecture}.embedding_length")
    if header.number(f"{arch}.wkv.head_size"):
        return header.number(f"{arch}.token_shift_count", 2) * width
    if length := header.number(f"{arch}.shortconv.l_cache"):
        return width * (length - 1)
    kept = max(0, header.number(f"{arch}.ssm.conv_kernel") - 1)
    if head_dim := header.number(f"{arch}.kda.head_dim"):
        return 3 * kept * _n_heads(header) * head_dim
    state = header.number(f"{arch}.ssm.state_size")
    convolved = 2 * header.number(f"{arch}.ssm.group_count") * state
    return kept * (header.number(f"{arch}.ssm.inner_size") + convolved)


def _memory(header: GgufHeader) -> int:
    """The numbers of a layer's memory proper."""
    arch = header.architecture
    if head_size := header.number(f"{arch}.wkv.head_size"):
        return header.number(f"{arch}.embedding_length") * head_size
    if head_dim := header.number(f"{arch}.kda.head_dim"):
        return head_dim * head_dim * _n_heads(header)
    if arch in LIGHTNING:
        head_dim = header.number(f"{arch}.embedding_length") // max(1, _n_heads(header))
        head_dim = header.number(f"{arch}.attention.key_length", head_dim)
        return head_dim * head_dim * _n_heads(header)
    return header.number(f"{arch}.ssm.state_size") * header.number(f"{arch}.ssm.inner_size")


def _n_heads(header: GgufHeader) -> int:
    return max(header.per_layer(f"{header.architecture}.attention.head_count", 1, 0))
