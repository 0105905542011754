"""The memory of recurrent states: arithmetic on a header.

A recurrent layer keeps one state of fixed size for each sequence, in place of a cell for each
token: the last inputs of its convolution, and its memory. llama.cpp's `llama_hparams::n_embd_r` and
`n_embd_s` give the sizes; both are stored as 32-bit floats.
"""

from engine_worker.model_file.gguf_header import LIGHTNING, GgufHeader

_NUMBER_BYTES = 4


def state_bytes(header: GgufHeader, n_layers: int) -> tuple[int, ...]:
    """The bytes of one sequence's state in each layer; 0 for a layer without one."""
    one = _NUMBER_BYTES * (_inputs(header) + _memory(header))
    return tuple(one if layer in header.state_layers else 0 for layer in range(n_layers))


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
