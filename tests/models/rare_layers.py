"""The tensors of layers that few architectures have, as llama.cpp names and shapes them."""

from tests.models.layers import (
    CONV,
    DELTA_KEY_HEADS,
    DELTA_STATE,
    DELTA_VALUE_HEADS,
    FFN,
    HEAD,
    INNER,
    LATENT,
    MAMBA2_HEADS,
    N_HEADS,
    N_KV_HEADS,
    ROTATED,
    STATE,
    WIDTH,
    Tensor,
    attention,
    experts,
)

INDEX, INDEX_HEADS = 64, 16
"""The size: llama.cpp's matrices that mix the keys of an indexer are at least so large. The heads:
with few of them many scores are equal, and the order of cells decides between these."""
LOW_RANK = 32
STREAMS = 4
"""Copies of the residual stream (hyper-connections)."""
N_GRAM, N_GRAM_HEADS = 3, 2
STEP = 64
"""llama.cpp's least width of PLaMo 2's steps."""


def plamo2_attention() -> list[Tensor]:
    """Self-attention with one projection and norms of each head."""
    n_q, n_k = N_HEADS * HEAD, N_KV_HEADS * HEAD
    return [
        ("attn_norm.weight", (WIDTH,), "norm"),
        ("attn_qkv.weight", (WIDTH, n_q + 2 * n_k), "matrix"),
        ("attn_q_norm.weight", (HEAD, N_HEADS), "scale"),
        ("attn_k_norm.weight", (HEAD, N_KV_HEADS), "scale"),
        ("attn_output.weight", (n_q, WIDTH), "matrix"),
    ]


def plamo2_mamba() -> list[Tensor]:
    """PLaMo 2's state space layer."""
    return [
        ("attn_norm.weight", (WIDTH,), "norm"),
        ("ssm_in.weight", (WIDTH, 2 * INNER), "matrix"),
        ("ssm_conv1d.weight", (CONV, INNER), "convolution"),
        ("ssm_x.weight", (INNER, STEP + 2 * STATE), "matrix"),
        ("ssm_dt.weight", (STEP, MAMBA2_HEADS), "matrix"),
        ("ssm_dt.bias", (MAMBA2_HEADS,), "step"),
        ("ssm_a", (MAMBA2_HEADS,), "decay"),
        ("ssm_d", (MAMBA2_HEADS,), "norm"),
        ("ssm_dt_norm", (STEP,), "norm"),
        ("ssm_b_norm", (STATE,), "norm"),
        ("ssm_c_norm", (STATE,), "norm"),
        ("ssm_out.weight", (INNER, WIDTH), "matrix"),
    ]


def plamo2_feed_forward() -> list[Tensor]:
    """A gated feed-forward between norms."""
    return [
        ("post_attention_norm", (WIDTH,), "norm"),
        ("ffn_norm.weight", (WIDTH,), "norm"),
        ("ffn_up.weight", (WIDTH, 2 * FFN), "matrix"),
        ("ffn_down.weight", (FFN, WIDTH), "matrix"),
        ("post_ffw_norm", (WIDTH,), "norm"),
    ]


def shared_experts() -> list[Tensor]:
    """Experts with a shared one that has no gate of its own."""
    return [one for one in experts(shared=True) if one[0] != "ffn_gate_inp_shexp.weight"]


def next_token() -> list[Tensor]:
    """The beginning and the end of a layer that drafts a further token."""
    return [
        ("nextn.eh_proj.weight", (2 * WIDTH, WIDTH), "matrix"),
        *((f"nextn.{name}.weight", (WIDTH,), "norm") for name in ("enorm", "hnorm")),
        ("nextn.shared_head_norm.weight", (WIDTH,), "norm"),
    ]


def indexer(n_heads: int = INDEX_HEADS) -> list[Tensor]:
    """What chooses the cells that queries attend to: projections and norms of its own keys."""
    return [
        ("indexer.q_proj.weight", (WIDTH, n_heads * INDEX), "matrix"),
        ("indexer.k_proj.weight", (WIDTH, INDEX), "matrix"),
        ("indexer.q_norm.weight", (INDEX,), "scale"),
        ("indexer.k_norm.weight", (INDEX,), "scale"),
    ]


def low_rank_attention() -> list[Tensor]:
    """Attention over compressed keys and values, with queries of low rank."""
    n_query = N_HEADS * (HEAD + ROTATED)
    return [
        ("attn_norm.weight", (WIDTH,), "norm"),
        ("attn_q_a.weight", (WIDTH, LOW_RANK), "matrix"),
        ("attn_q_a_norm.weight", (LOW_RANK,), "norm"),
        ("attn_q_b.weight", (LOW_RANK, n_query), "matrix"),
        ("attn_kv_a_norm.weight", (LATENT,), "norm"),
        ("attn_kv_a_mqa.weight", (WIDTH, LATENT + ROTATED), "matrix"),
        ("attn_k_b.weight", (HEAD, LATENT, N_HEADS), "matrix"),
        ("attn_v_b.weight", (LATENT, HEAD, N_HEADS), "matrix"),
        ("attn_output.weight", (N_HEADS * HEAD, WIDTH), "matrix"),
    ]


def latent_indexer() -> list[Tensor]:
    """The indexer beside `low_rank_attention`."""
    return [
        ("indexer.k_norm.weight", (INDEX,), "norm"),
        ("indexer.k_norm.bias", (INDEX,), "bias"),
        ("indexer.proj.weight", (WIDTH, INDEX_HEADS), "matrix"),
        ("indexer.attn_k.weight", (WIDTH, INDEX), "matrix"),
        ("indexer.attn_q_b.weight", (LOW_RANK, INDEX_HEADS * INDEX), "matrix"),
    ]


def gated_attention() -> list[Tensor]:
    """Qwen4's attention, with an indexer."""
    plain = attention(qk_norm=True, gated=True)
    return [one for one in plain if one[0] != "attn_norm.weight"] + indexer()


def delta_net() -> list[Tensor]:
    """Qwen4's gated delta rule."""
    value = DELTA_STATE * DELTA_VALUE_HEADS
    convolved = 2 * DELTA_STATE * DELTA_KEY_HEADS + value
    return [
        ("attn_qkv.weight", (WIDTH, convolved), "matrix"),
        ("attn_gate.weight", (WIDTH, value), "matrix"),
        ("ssm_conv1d.weight", (CONV, convolved), "convolution"),
        ("ssm_dt.bias", (DELTA_VALUE_HEADS,), "step"),
        ("ssm_a", (DELTA_VALUE_HEADS,), "decay"),
        ("ssm_beta.weight", (WIDTH, DELTA_VALUE_HEADS), "matrix"),
        ("ssm_alpha.weight", (WIDTH, DELTA_VALUE_HEADS), "matrix"),
        ("ssm_norm.weight", (DELTA_STATE,), "norm"),
        ("ssm_out.weight", (value, WIDTH), "matrix"),
    ]


def _mixer(name: str) -> list[Tensor]:
    wide = STREAMS * WIDTH
    return [
        (f"{name}_norm.weight", (WIDTH, STREAMS), "norm"),
        (f"{name}_down.weight", (wide, LOW_RANK), "matrix"),
        (f"{name}_up.weight", (LOW_RANK, wide), "matrix"),
    ]


def mixed_streams() -> list[Tensor]:
    """Qwen4's hyper-connections before attention and before the experts."""
    return [
        tensor
        for name in ("hc_attn", "hc_ffn")
        for tensor in (
            *_mixer(name),
            (f"{name}_inject.weight", (STREAMS * WIDTH, STREAMS), "matrix"),
        )
    ]


def last_mixer() -> list[Tensor]:
    """What makes one stream of them before the output."""
    return _mixer("output_hc")


def n_grams() -> list[Tensor]:
    """Qwen4's embeddings of the last few tokens together, behind a convolution."""
    wide = STREAMS * WIDTH
    return [
        ("ple_key.weight", (WIDTH, wide), "matrix"),
        ("ple_value.weight", (WIDTH, WIDTH), "matrix"),
        *((f"ple_norm_{name}.weight", (WIDTH, STREAMS), "norm") for name in ("key", "query")),
        ("ple_norm_conv.weight", (WIDTH, STREAMS), "norm"),
        ("ple_conv1d.weight", (CONV, wide), "convolution"),
    ]


def compressed_attention(ratio: int) -> list[Tensor]:
    """DeepSeek 4's attention: a window, and `ratio` tokens compressed into each cell behind it."""
    n_groups = 2
    tensors: list[Tensor] = [
        ("attn_norm.weight", (WIDTH,), "norm"),
        ("attn_sinks.weight", (N_HEADS,), "bias"),
        ("attn_q_a.weight", (WIDTH, LOW_RANK), "matrix"),
        ("attn_q_a_norm.weight", (LOW_RANK,), "norm"),
        ("attn_q_b.weight", (LOW_RANK, N_HEADS * HEAD), "matrix"),
        ("attn_kv.weight", (WIDTH, HEAD), "matrix"),
        ("attn_kv_a_norm.weight", (HEAD,), "norm"),
        ("attn_output_a.weight", (N_HEADS * HEAD // n_groups, LOW_RANK * n_groups), "matrix"),
        ("attn_output_b.weight", (LOW_RANK * n_groups, WIDTH), "matrix"),
    ]
    if ratio:
        tensors += _compressor("attn_compressor", ratio, HEAD)
    if ratio == 4:
        tensors += [
            ("indexer.proj.weight", (WIDTH, INDEX_HEADS), "matrix"),
            ("indexer.attn_q_b.weight", (LOW_RANK, INDEX_HEADS * INDEX), "matrix"),
            *_compressor("indexer_compressor", ratio, INDEX),
        ]
    return tensors


def _compressor(name: str, ratio: int, size: int) -> list[Tensor]:
    overlapping = (2 if ratio == 4 else 1) * size
    return [
        (f"{name}_kv.weight", (WIDTH, overlapping), "matrix"),
        (f"{name}_gate.weight", (WIDTH, overlapping), "matrix"),
        (f"{name}_ape.weight", (overlapping, ratio), "bias"),
        (f"{name}_norm.weight", (size,), "norm"),
    ]


def whole_streams() -> list[Tensor]:
    """DeepSeek 4's hyper-connections, of full rank."""
    n_mixed = (2 + STREAMS) * STREAMS
    return [
        tensor
        for name in ("hc_attn", "hc_ffn")
        for tensor in (
            (f"{name}_fn.weight", (STREAMS * WIDTH, n_mixed), "matrix"),
            (f"{name}_base.weight", (n_mixed,), "bias"),
            (f"{name}_scale.weight", (3,), "norm"),
        )
    ]


def last_streams() -> list[Tensor]:
    """What makes one stream of them before the output."""
    return [
        ("output_hc_fn.weight", (STREAMS * WIDTH, STREAMS), "matrix"),
        ("output_hc_base.weight", (STREAMS,), "bias"),
        ("output_hc_scale.weight", (1,), "norm"),
    ]
