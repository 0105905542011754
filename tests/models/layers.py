"""The tensors of one layer of each kind, as llama.cpp names and shapes them.

A tensor is its name, its sizes with the row length first, and the fill of its numbers (`fill`).
Sizes are small; the ratios between them are those that llama.cpp requires.
"""

from collections.abc import Iterable

Tensor = tuple[str, tuple[int, ...], str]

WIDTH, N_LAYERS, N_HEADS, N_KV_HEADS, HEAD, FFN = 64, 4, 4, 2, 16, 128
N_EXPERTS, N_EXPERTS_USED, EXPERT_FFN = 4, 2, 32
CONV, INNER, STATE, RANK = 4, 128, 16, 8
MAMBA2_STATE, MAMBA2_HEADS = 16, 8
# as in real models: with AVX-512, llama.cpp computes heads in steps of 64, and past a smaller one
WKV_HEAD, LORA = 64, 16
DELTA_STATE, DELTA_KEY_HEADS, DELTA_VALUE_HEADS = 16, 2, 4
KDA_HEAD, LATENT, ROTATED = 16, 32, 8


def attention(
    *,
    n_kv: int = N_KV_HEADS,
    bias: bool = False,
    qk_norm: bool = False,
    post_norm: bool = False,
    gated: bool = False,
) -> list[Tensor]:
    """Self-attention with separate projections. `gated`: the query projection also makes a gate."""
    n_q, n_k = N_HEADS * HEAD, n_kv * HEAD
    tensors = [
        ("attn_norm.weight", (WIDTH,), "norm"),
        ("attn_q.weight", (WIDTH, n_q * (2 if gated else 1)), "matrix"),
        ("attn_k.weight", (WIDTH, n_k), "matrix"),
        ("attn_v.weight", (WIDTH, n_k), "matrix"),
        ("attn_output.weight", (n_q, WIDTH), "matrix"),
    ]
    if bias:
        tensors += [
            (f"attn_{name}.bias", (n,), "bias")
            for name, n in zip("qkv", (n_q, n_k, n_k), strict=True)
        ]
    if qk_norm:
        tensors += [(f"attn_{name}_norm.weight", (HEAD,), "scale") for name in "qk"]
    if post_norm:
        tensors.append(("post_attention_norm.weight", (WIDTH,), "norm"))
    return tensors


def fused_attention() -> list[Tensor]:
    """Self-attention with one projection for queries, keys and values."""
    return [
        ("attn_norm.weight", (WIDTH,), "norm"),
        ("attn_qkv.weight", (WIDTH, 3 * N_HEADS * HEAD), "matrix"),
        ("attn_output.weight", (N_HEADS * HEAD, WIDTH), "matrix"),
    ]


def feed_forward(*, fused: bool = False, post_norm: bool = False) -> list[Tensor]:
    """A gated feed-forward. `fused`: one matrix makes the gate and the values."""
    tensors = [
        ("ffn_norm.weight", (WIDTH,), "norm"),
        ("ffn_up.weight", (WIDTH, 2 * FFN if fused else FFN), "matrix"),
        ("ffn_down.weight", (FFN, WIDTH), "matrix"),
    ]
    if not fused:
        tensors.append(("ffn_gate.weight", (WIDTH, FFN), "matrix"))
    if post_norm:
        tensors.append(("post_ffw_norm.weight", (WIDTH,), "norm"))
    return tensors


def experts(
    n_ffn: int = EXPERT_FFN, *, norm: bool = True, bias: bool = False, shared: bool = False
) -> list[Tensor]:
    """A mixture of experts, with one shared expert beside the routed ones or without."""
    tensors = [
        ("ffn_gate_inp.weight", (WIDTH, N_EXPERTS), "router"),
        ("ffn_gate_exps.weight", (WIDTH, n_ffn, N_EXPERTS), "matrix"),
        ("ffn_up_exps.weight", (WIDTH, n_ffn, N_EXPERTS), "matrix"),
        ("ffn_down_exps.weight", (n_ffn, WIDTH, N_EXPERTS), "matrix"),
    ]
    if norm:
        tensors.append(("ffn_norm.weight", (WIDTH,), "norm"))
    if bias:
        tensors += [
            ("ffn_gate_inp.bias", (N_EXPERTS,), "bias"),
            ("ffn_gate_exps.bias", (n_ffn, N_EXPERTS), "bias"),
            ("ffn_up_exps.bias", (n_ffn, N_EXPERTS), "bias"),
            ("ffn_down_exps.bias", (WIDTH, N_EXPERTS), "bias"),
        ]
    if shared:
        tensors += [
            ("ffn_gate_inp_shexp.weight", (WIDTH,), "bias"),
            ("ffn_gate_shexp.weight", (WIDTH, n_ffn), "matrix"),
            ("ffn_up_shexp.weight", (WIDTH, n_ffn), "matrix"),
            ("ffn_down_shexp.weight", (n_ffn, WIDTH), "matrix"),
        ]
    return tensors


def sinks() -> list[Tensor]:
    """What gpt-oss adds to attention: a bias of the output, and a sink for each head."""
    return [
        ("attn_output.bias", (WIDTH,), "bias"),
        ("attn_sinks.weight", (N_HEADS,), "bias"),
    ]


def mamba(*, norms: bool = False) -> list[Tensor]:
    """A selective state space layer of the first kind."""
    tensors = [
        ("attn_norm.weight", (WIDTH,), "norm"),
        ("ssm_in.weight", (WIDTH, 2 * INNER), "matrix"),
        ("ssm_conv1d.weight", (CONV, INNER), "convolution"),
        ("ssm_conv1d.bias", (INNER,), "bias"),
        ("ssm_x.weight", (INNER, RANK + 2 * STATE), "matrix"),
        ("ssm_dt.weight", (RANK, INNER), "matrix"),
        ("ssm_dt.bias", (INNER,), "step"),
        ("ssm_a", (STATE, INNER), "decay"),
        ("ssm_d", (INNER,), "norm"),
        ("ssm_out.weight", (INNER, WIDTH), "matrix"),
    ]
    if norms:
        sizes = {"dt": RANK, "b": STATE, "c": STATE}
        tensors += [(f"ssm_{name}_norm.weight", (n,), "norm") for name, n in sizes.items()]
    return tensors


def mamba2() -> list[Tensor]:
    """A state space layer of the second kind, with one group."""
    convolved = INNER + 2 * MAMBA2_STATE
    return [
        ("attn_norm.weight", (WIDTH,), "norm"),
        ("ssm_in.weight", (WIDTH, INNER + convolved + MAMBA2_HEADS), "matrix"),
        ("ssm_conv1d.weight", (CONV, convolved), "convolution"),
        ("ssm_conv1d.bias", (convolved,), "bias"),
        ("ssm_dt.bias", (MAMBA2_HEADS,), "step"),
        ("ssm_a", (1, MAMBA2_HEADS), "decay"),
        ("ssm_d", (1, MAMBA2_HEADS), "norm"),
        ("ssm_norm.weight", (INNER, 1), "norm"),
        ("ssm_out.weight", (INNER, WIDTH), "matrix"),
    ]


def rwkv7() -> list[Tensor]:
    """A time mix and a channel mix of RWKV-7."""
    norms = ("attn_norm", "attn_norm_2", "time_mix_ln")
    scales = ("time_mix_k_k", "time_mix_k_a")
    biases = ("time_mix_w0", "time_mix_a0", "time_mix_v0", "time_mix_r_k")
    square = ("key", "value", "receptance", "output")
    return [
        *((f"{name}.weight", (WIDTH,), "norm") for name in (*norms, *scales)),
        *((f"{name}.bias", (WIDTH,), "bias") for name in norms),
        *((f"{name}.weight", (WIDTH,), "bias") for name in biases),
        *((f"time_mix_{name}1.weight", (WIDTH, LORA), "matrix") for name in "wavg"),
        *((f"time_mix_{name}2.weight", (LORA, WIDTH), "matrix") for name in "wavg"),
        *((f"time_mix_{name}.weight", (WIDTH, WIDTH), "matrix") for name in square),
        ("time_mix_lerp_fused.weight", (WIDTH, 1, 1, 6), "half"),
        ("channel_mix_lerp_k.weight", (WIDTH, 1, 1), "half"),
        ("channel_mix_key.weight", (WIDTH, FFN), "matrix"),
        ("channel_mix_value.weight", (FFN, WIDTH), "matrix"),
    ]


def short_convolution() -> list[Tensor]:
    """LFM2's gated convolution over the last three tokens."""
    return [
        ("attn_norm.weight", (WIDTH,), "norm"),
        ("shortconv.conv.weight", (3, WIDTH), "convolution"),
        ("shortconv.in_proj.weight", (WIDTH, 3 * WIDTH), "matrix"),
        ("shortconv.out_proj.weight", (WIDTH, WIDTH), "matrix"),
    ]


def delta_net() -> list[Tensor]:
    """The gated delta rule of Qwen3-Next."""
    value = DELTA_STATE * DELTA_VALUE_HEADS
    convolved = 2 * DELTA_STATE * DELTA_KEY_HEADS + value
    return [
        ("attn_norm.weight", (WIDTH,), "norm"),
        ("post_attention_norm.weight", (WIDTH,), "norm"),
        ("attn_qkv.weight", (WIDTH, convolved), "matrix"),
        ("attn_gate.weight", (WIDTH, value), "matrix"),
        ("ssm_conv1d.weight", (CONV, convolved), "convolution"),
        ("ssm_dt.bias", (DELTA_VALUE_HEADS,), "step"),
        ("ssm_a", (DELTA_VALUE_HEADS,), "decay"),
        ("ssm_ba.weight", (WIDTH, 2 * DELTA_VALUE_HEADS), "matrix"),
        ("ssm_norm.weight", (DELTA_STATE,), "norm"),
        ("ssm_out.weight", (value, WIDTH), "matrix"),
    ]


def delta_attention() -> list[Tensor]:
    """The delta rule of Kimi Linear, with a gate for each channel."""
    inner = KDA_HEAD * N_HEADS
    return [
        ("attn_norm.weight", (WIDTH,), "norm"),
        *((f"attn_{name}.weight", (WIDTH, inner), "matrix") for name in "qkv"),
        *((f"ssm_conv1d_{name}.weight", (CONV, 1, inner), "convolution") for name in "qkv"),
        ("ssm_f_a.weight", (WIDTH, KDA_HEAD), "matrix"),
        ("ssm_f_b.weight", (KDA_HEAD, inner), "matrix"),
        ("ssm_beta.weight", (WIDTH, N_HEADS), "matrix"),
        ("ssm_a", (1, N_HEADS), "decay"),
        ("ssm_dt.bias", (inner,), "step"),
        ("ssm_g_a.weight", (WIDTH, KDA_HEAD), "matrix"),
        ("ssm_g_b.weight", (KDA_HEAD, inner), "matrix"),
        ("ssm_norm.weight", (KDA_HEAD,), "norm"),
        ("attn_output.weight", (inner, WIDTH), "matrix"),
    ]


def lightning_attention() -> list[Tensor]:
    """The linear attention of MiniMax-01."""
    inner = HEAD * N_HEADS
    return [
        ("attn_norm.weight", (WIDTH,), "norm"),
        ("attn_norm_2.weight", (inner,), "norm"),
        ("attn_qkv.weight", (WIDTH, 3 * inner), "matrix"),
        ("attn_gate.weight", (WIDTH, inner), "matrix"),
        ("attn_output.weight", (inner, WIDTH), "matrix"),
    ]


def latent_attention() -> list[Tensor]:
    """Attention over compressed keys and values (MLA)."""
    return [
        ("attn_norm.weight", (WIDTH,), "norm"),
        ("attn_kv_a_norm.weight", (LATENT,), "norm"),
        ("attn_q.weight", (WIDTH, N_HEADS * (HEAD + ROTATED)), "matrix"),
        ("attn_kv_a_mqa.weight", (WIDTH, LATENT + ROTATED), "matrix"),
        ("attn_k_b.weight", (HEAD, LATENT, N_HEADS), "matrix"),
        ("attn_v_b.weight", (LATENT, HEAD, N_HEADS), "matrix"),
        ("attn_output.weight", (N_HEADS * HEAD, WIDTH), "matrix"),
    ]


def stacked(layers: Iterable[list[Tensor]]) -> list[Tensor]:
    """The tensors of all layers, named by layer."""
    return [
        (f"blk.{at}.{name}", sizes, how)
        for at, layer in enumerate(layers)
        for name, sizes, how in layer
    ]
