"""Tiny models of rare architectures, each with a cache or a state of a kind of its own."""

from collections.abc import Callable

from tests.models import layers, rare_layers
from tests.models.families import (
    DELTA_KEYS,
    EXPERT_KEYS,
    HEAD_KEYS,
    MAMBA2_KEYS,
    MAMBA_KEYS,
    WINDOW,
    Family,
    heads_of,
    plain_keys,
    whole,
)
from tests.models.layers import (
    CONV,
    EXPERT_FFN,
    FFN,
    HEAD,
    MAMBA2_HEADS,
    N_EXPERTS,
    N_KV_HEADS,
    N_LAYERS,
    WIDTH,
    Tensor,
    attention,
    experts,
    feed_forward,
)
from tests.models.vocabulary import N_VOCAB


def _kimi_linear() -> Family:
    def layer(at: int) -> list[Tensor]:
        mixer = layers.latent_attention() if at == 2 else layers.delta_attention()
        if not at:
            return mixer + feed_forward()
        shared = experts(shared=True)
        routed = [tensor for tensor in shared if tensor[0] != "ffn_gate_inp_shexp.weight"]
        return [*mixer, *routed, ("exp_probs_b.bias", (N_EXPERTS,), "bias")]

    keys = plain_keys(
        **EXPERT_KEYS,
        expert_shared_count=1,
        expert_gating_func=2,
        leading_dense_block_count=1,
        ssm__conv_kernel=CONV,
        kda__head_dim=layers.KDA_HEAD,
        **_LATENT_KEYS,
        attention__head_count_kv=[1 if at == 2 else 0 for at in range(N_LAYERS)],
    )
    return Family("kimi-linear", keys, whole(layer))


def _minimax_01() -> Family:
    def layer(at: int) -> list[Tensor]:
        return (attention() if at == 3 else layers.lightning_attention()) + experts(FFN)

    experts_of = {key: EXPERT_KEYS[key] for key in ("expert_count", "expert_used_count")}
    keys = plain_keys(**experts_of, **HEAD_KEYS, full_attention_interval=4, residual_scale=1.5)
    return Family("minimax-01", keys, whole(layer))


def _deci() -> Family:
    """Layers have different numbers of heads for keys and values, some of them none."""
    n_kv = [2, 1, 0, 4]

    def layer(at: int) -> list[Tensor]:
        whole_attention = attention(n_kv=n_kv[at])
        if not n_kv[at]:
            whole_attention = [one for one in whole_attention if one[0] in _WITHOUT_KEYS]
        return whole_attention + feed_forward()

    return Family("deci", plain_keys(attention__head_count_kv=n_kv), whole(layer))


_WITHOUT_KEYS = ("attn_norm.weight", "attn_output.weight")


def _plamo2() -> Family:
    def layer(at: int) -> list[Tensor]:
        mixer = rare_layers.plamo2_attention() if at % 2 else rare_layers.plamo2_mamba()
        return mixer + rare_layers.plamo2_feed_forward()

    more = MAMBA_KEYS | {"ssm__time_step_rank": MAMBA2_HEADS, "ssm__group_count": 0}
    keys = plain_keys(**HEAD_KEYS, **more, attention__head_count_kv=heads_of(1, 3))
    return Family("plamo2", keys, whole(layer))


def _nemotron_h() -> Family:
    """A layer is a state, attention, or a feed-forward network, whatever heads the header names."""
    n_ffn = [0, FFN, 0, FFN]
    network: list[Tensor] = [
        ("attn_norm.weight", (WIDTH,), "norm"),
        ("ffn_up.weight", (WIDTH, FFN), "matrix"),
        ("ffn_down.weight", (FFN, WIDTH), "matrix"),
    ]

    def layer(at: int) -> list[Tensor]:
        if n_ffn[at]:
            return network
        return layers.mamba2() if at == 0 else attention()

    keys = plain_keys(
        **MAMBA2_KEYS,
        **HEAD_KEYS,
        attention__layer_norm_epsilon=1e-5,
        attention__head_count_kv=heads_of(1, 2),
        feed_forward_length=n_ffn,
    )
    return Family("nemotron_h", keys, whole(layer))


def _glm4moe() -> Family:
    """The last layer drafts a further token."""

    def layer(at: int) -> list[Tensor]:
        bias: Tensor = ("exp_probs_b.bias", (N_EXPERTS,), "bias")
        mixed = [*rare_layers.shared_experts(), bias] if at else feed_forward()
        return attention(post_norm=True) + [one for one in mixed if one[0] != "ffn_norm.weight"]

    keys = plain_keys(
        **EXPERT_KEYS,
        **HEAD_KEYS,
        block_count=N_LAYERS + 1,
        expert_shared_count=1,
        leading_dense_block_count=1,
        nextn_predict_layers=1,
    )
    drafting = [*layer(N_LAYERS), *rare_layers.next_token()]
    last = [(f"blk.{N_LAYERS}.{name}", sizes, how) for name, sizes, how in drafting]
    return Family("glm4moe", keys, [*whole(layer), *last])


def _with_indexer(**changes: int) -> dict[str, int]:
    return {
        "attention__indexer__head_count": rare_layers.INDEX_HEADS,
        "attention__indexer__key_length": rare_layers.INDEX,
        "attention__indexer__top_k": 64,
    } | changes


def _minimax_m3() -> Family:
    def layer(at: int) -> list[Tensor]:
        mixer = attention(qk_norm=True)
        if not at:
            return mixer + feed_forward()
        bias: Tensor = ("exp_probs_b.bias", (N_EXPERTS,), "bias")
        return [*mixer, *rare_layers.indexer(N_KV_HEADS), *rare_layers.shared_experts(), bias]

    keys = plain_keys(
        **EXPERT_KEYS,
        **HEAD_KEYS,
        **_with_indexer(
            attention__indexer__head_count=N_KV_HEADS,
            attention__indexer__block_size=4,
            attention__indexer__local_blocks=1,
        ),
        expert_shared_count=1,
        expert_gating_func=2,
        leading_dense_block_count=1,
    )
    tensors = whole(layer)
    return Family("minimax-m3", keys, tensors)


def _glm_dsa() -> Family:
    """The last layer uses the choice of the one before."""

    def layer(at: int) -> list[Tensor]:
        mixer = rare_layers.low_rank_attention()
        if at != N_LAYERS - 1:
            mixer += rare_layers.latent_indexer()
        return mixer + (rare_layers.shared_experts() if at else feed_forward())

    keys = plain_keys(
        **EXPERT_KEYS,
        **_with_indexer(),
        **_LATENT_KEYS,
        expert_shared_count=1,
        expert_gating_func=2,
        leading_dense_block_count=1,
        attention__q_lora_rank=rare_layers.LOW_RANK,
        attention__head_count_kv=1,
        attention__indexer__types=[int(at != N_LAYERS - 1) for at in range(N_LAYERS)],
    )
    return Family("glm-dsa", keys, whole(layer))


def _qwen4exp() -> Family:
    def layer(at: int) -> list[Tensor]:
        attends = at % 4 == 3
        mixer = rare_layers.gated_attention() if attends else rare_layers.delta_net()
        own = mixer + rare_layers.mixed_streams() + (rare_layers.n_grams() if at == 0 else [])
        return own + experts(norm=False, shared=True)

    n_streams = rare_layers.STREAMS
    n_heads = (rare_layers.N_GRAM - 1) * rare_layers.N_GRAM_HEADS
    keys = plain_keys(
        **EXPERT_KEYS,
        **HEAD_KEYS,
        **_with_indexer(),
        expert_shared_feed_forward_length=EXPERT_FFN,
        **DELTA_KEYS,
        hyper_connection__count=n_streams,
        hyper_connection__low_rank=rare_layers.LOW_RANK,
        rope__dimension_sections=[HEAD // 4] * 4,
        attention__compress_ratios=[4] * N_LAYERS,
        embedding_length_per_layer_input=WIDTH // n_heads,
        ple__layers=[0],
        ple__ngram_size=rare_layers.N_GRAM,
        ple__heads_per_ngram=rare_layers.N_GRAM_HEADS,
        ple__conv_kernel=CONV,
        ple__eos_token_id=0,
        ple__layer_multipliers=(1, 3, 5),
        ple__head_offsets=tuple(at * N_VOCAB for at in range(n_heads)),
        ple__head_vocab_sizes=(N_VOCAB,) * n_heads,
    )
    table: Tensor = ("per_layer_token_embd.weight", (WIDTH // n_heads, n_heads * N_VOCAB), "matrix")
    ends = [one for one in whole(layer) if one[0] != "output_norm.weight"]
    return Family("qwen4exp", keys, [*ends, *rare_layers.last_mixer(), table])


def _deepseek4() -> Family:
    def layer(at: int) -> list[Tensor]:
        mixer = rare_layers.compressed_attention(_RATIOS[at])
        bias: Tensor = ("exp_probs_b.bias", (N_EXPERTS,), "bias")
        return [*mixer, *rare_layers.whole_streams(), *rare_layers.shared_experts(), bias]

    keys = plain_keys(
        **EXPERT_KEYS,
        **HEAD_KEYS,
        **_with_indexer(),
        attention__head_count_kv=1,
        attention__q_lora_rank=rare_layers.LOW_RANK,
        attention__sliding_window=WINDOW,
        attention__output_group_count=2,
        attention__output_lora_rank=rare_layers.LOW_RANK,
        attention__compress_ratios=_RATIOS,
        attention__compress_rope_freq_base=160000.0,
        hyper_connection__count=rare_layers.STREAMS,
        hyper_connection__sinkhorn_iterations=2,
        hyper_connection__epsilon=1e-6,
        hash_layer_count=0,
        swiglu_clamp_exp=10.0,
        expert_shared_count=1,
        expert_gating_func=4,
        expert_weights_scale=1.0,
        expert_weights_norm=True,
        rope__dimension_count=HEAD // 2,
    )
    return Family("deepseek4", keys, [*whole(layer), *rare_layers.last_streams()])


_RATIOS = [0, 4, 128, 4]

_LATENT_KEYS = {
    "rope__dimension_count": layers.ROTATED,
    "attention__kv_lora_rank": layers.LATENT,
    "attention__key_length": layers.LATENT + layers.ROTATED,
    "attention__value_length": layers.LATENT,
    "attention__key_length_mla": HEAD + layers.ROTATED,
    "attention__value_length_mla": HEAD,
}

RARE: dict[str, Callable[[], Family]] = {
    "kimi-linear": _kimi_linear,
    "minimax-01": _minimax_01,
    "deci": _deci,
    "plamo2": _plamo2,
    "nemotron-h": _nemotron_h,
    "glm4moe": _glm4moe,
    "minimax-m3": _minimax_m3,
    "glm-dsa": _glm_dsa,
    "qwen4exp": _qwen4exp,
    "deepseek4": _deepseek4,
}
"""Tests of families leave these out. `test_memory` has all of them, `test_usual_attention` and
`test_checkpoints` have some hybrids."""
