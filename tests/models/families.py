"""A table of tiny models: the header's keys and the tensors of each architecture."""

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.models import bert, layers, vocabulary
from tests.models.layers import (
    CONV,
    DELTA_KEY_HEADS,
    DELTA_STATE,
    DELTA_VALUE_HEADS,
    EXPERT_FFN,
    FFN,
    HEAD,
    INNER,
    LORA,
    MAMBA2_HEADS,
    MAMBA2_STATE,
    N_EXPERTS,
    N_EXPERTS_USED,
    N_HEADS,
    N_KV_HEADS,
    N_LAYERS,
    RANK,
    STATE,
    WIDTH,
    WKV_HEAD,
    Tensor,
    attention,
    experts,
    feed_forward,
    fused_attention,
    mamba,
    mamba2,
)
from tests.models.vocabulary import N_VOCAB

Keys = dict[str, Any]
"""Keys of the header; keys of an architecture stand without its name."""

WINDOW = 32
ORIGINAL_CONTEXT = 256
"""The context at which the LongRoPE model changes its factors."""


class Family(NamedTuple):
    """One architecture. Keys in `keys` get the architecture's name in front."""

    architecture: str
    keys: Keys
    tensors: list[Tensor]
    vocabulary: Keys = vocabulary.keys()


def plain_keys(**changes: Any) -> Keys:
    """A plain transformer's keys; None leaves a key out. `__` stands for a dot."""
    plain: Keys = {
        "block_count": N_LAYERS,
        "context_length": 8192,
        "embedding_length": WIDTH,
        "feed_forward_length": FFN,
        "attention.head_count": N_HEADS,
        "attention.head_count_kv": N_KV_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": HEAD,
        "rope.freq_base": 10000.0,
    }
    plain |= {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in plain.items() if value is not None}


EXPERT_KEYS: Keys = {
    "expert_count": N_EXPERTS,
    "expert_used_count": N_EXPERTS_USED,
    "expert_feed_forward_length": EXPERT_FFN,
}
HEAD_KEYS: Keys = {"attention__key_length": HEAD, "attention__value_length": HEAD}
DELTA_KEYS: Keys = {
    "ssm__conv_kernel": CONV,
    "ssm__inner_size": DELTA_STATE * DELTA_VALUE_HEADS,
    "ssm__state_size": DELTA_STATE,
    "ssm__time_step_rank": DELTA_VALUE_HEADS,
    "ssm__group_count": DELTA_KEY_HEADS,
}
"""Of gated delta nets."""
_NO_ATTENTION: Keys = {
    "attention__head_count": 0,
    "attention__head_count_kv": None,
    "rope__dimension_count": None,
    "rope__freq_base": None,
}
MAMBA_KEYS: Keys = {
    "ssm__conv_kernel": CONV,
    "ssm__inner_size": INNER,
    "ssm__state_size": STATE,
    "ssm__time_step_rank": RANK,
}
MAMBA2_KEYS: Keys = MAMBA_KEYS | {
    "ssm__state_size": MAMBA2_STATE,
    "ssm__time_step_rank": MAMBA2_HEADS,
    "ssm__group_count": 1,
}


def heads_of(*attending: int) -> list[int]:
    return [N_KV_HEADS if at in attending else 0 for at in range(N_LAYERS)]


def whole(
    layer: Callable[[int], list[Tensor]], *, tied: bool = False, final: str = "output_norm"
) -> list[Tensor]:
    """Embeddings, all layers, and the output."""
    ends: list[Tensor] = [
        ("token_embd.weight", (WIDTH, N_VOCAB), "small" if tied else "embedding"),
        (f"{final}.weight", (WIDTH,), "norm"),
    ]
    if not tied:
        ends.append(("output.weight", (WIDTH, N_VOCAB), "matrix"))
    return ends + layers.stacked(layer(at) for at in range(N_LAYERS))


def _llama() -> Family:
    return Family("llama", plain_keys(), whole(lambda _: attention() + feed_forward()))


def _qwen3() -> Family:
    tensors = whole(lambda _: attention(qk_norm=True) + feed_forward(), tied=True)
    return Family("qwen3", plain_keys(**HEAD_KEYS), tensors)


def _qwen3moe() -> Family:
    keys = plain_keys(**EXPERT_KEYS, **HEAD_KEYS)
    return Family("qwen3moe", keys, whole(lambda _: attention(qk_norm=True) + experts()))


def _gemma(architecture: str, **more: Any) -> Family:
    qk_norm = architecture == "gemma3"

    def layer(_: int) -> list[Tensor]:
        return attention(qk_norm=qk_norm, post_norm=True) + feed_forward(post_norm=True)

    keys = plain_keys(attention__sliding_window=WINDOW, **HEAD_KEYS, **more)
    # llama.cpp multiplies the embeddings, which are the output too, by the root of their width
    fills = {"token_embd.weight": "tiny", "output_norm.weight": "loud"}
    tensors = [(name, sizes, fills.get(name, how)) for name, sizes, how in whole(layer, tied=True)]
    return Family(architecture, keys, tensors)


def _gemma2() -> Family:
    return _gemma("gemma2", attn_logit_softcapping=50.0, final_logit_softcapping=30.0)


def _gemma3() -> Family:
    return _gemma("gemma3", attention__sliding_window_pattern=2)


def _gpt_oss() -> Family:
    def layer(_: int) -> list[Tensor]:
        own = attention(bias=True, post_norm=True) + layers.sinks()
        return own + experts(norm=False, bias=True)

    keys = plain_keys(**EXPERT_KEYS, **HEAD_KEYS, attention__sliding_window=WINDOW)
    return Family("gpt-oss", keys, whole(layer))


def _phi3() -> Family:
    tensors = whole(lambda _: fused_attention() + feed_forward(fused=True))
    return Family("phi3", plain_keys(attention__head_count_kv=N_HEADS), tensors)


def _phi3_longrope() -> Family:
    keys = plain_keys(
        attention__head_count_kv=N_HEADS,
        rope__scaling__type="longrope",
        rope__scaling__attn_factor=1.2,
        rope__scaling__original_context_length=ORIGINAL_CONTEXT,
    )
    factors: list[Tensor] = [
        ("rope_factors_long.weight", (HEAD // 2,), "long factors"),
        ("rope_factors_short.weight", (HEAD // 2,), "short factors"),
    ]
    return Family("phi3", keys, [*_phi3().tensors, *factors])


def _mamba() -> Family:
    keys = plain_keys(**_NO_ATTENTION, **MAMBA_KEYS, feed_forward_length=0)
    return Family("mamba", keys, whole(lambda _: mamba()))


def _mamba2() -> Family:
    keys = plain_keys(**_NO_ATTENTION, **MAMBA2_KEYS, feed_forward_length=0)
    return Family("mamba2", keys, whole(lambda _: mamba2()))


def _rwkv7() -> Family:
    ranks = ("decay", "iclr", "value_residual_mix", "gate")
    keys = plain_keys(
        **_NO_ATTENTION,
        wkv__head_size=WKV_HEAD,
        attention__layer_norm_epsilon=1e-5,
        token_shift_count=2,
        **{f"attention__{name}_lora_rank": LORA for name in ranks},
    )
    more: list[Tensor] = [
        ("output_norm.bias", (WIDTH,), "bias"),
        ("token_embd_norm.weight", (WIDTH,), "norm"),
        ("token_embd_norm.bias", (WIDTH,), "bias"),
    ]
    return Family("rwkv7", keys, [*whole(lambda _: layers.rwkv7()), *more])


def _jamba() -> Family:
    def layer(at: int) -> list[Tensor]:
        mixer = attention() if at == 2 else mamba(norms=True)
        return mixer + (experts(FFN) if at % 2 else feed_forward())

    experts_of = {key: EXPERT_KEYS[key] for key in ("expert_count", "expert_used_count")}
    no_rope = {"rope__dimension_count": None, "rope__freq_base": None}
    keys = plain_keys(**MAMBA_KEYS, **experts_of, **no_rope, attention__head_count_kv=heads_of(2))
    return Family("jamba", keys, whole(layer))


def _lfm2() -> Family:
    def layer(at: int) -> list[Tensor]:
        mixer = attention(qk_norm=True) if at % 2 else layers.short_convolution()
        return mixer + feed_forward()

    keys = plain_keys(shortconv__l_cache=3, attention__head_count_kv=heads_of(1, 3))
    return Family("lfm2", keys, whole(layer, final="token_embd_norm"))


def _qwen3next() -> Family:
    def layer(at: int) -> list[Tensor]:
        attends = at % 4 == 3
        own = attention(qk_norm=True, post_norm=True, gated=True) if attends else layers.delta_net()
        return own + experts(norm=False, shared=True)

    keys = plain_keys(
        **EXPERT_KEYS,
        **HEAD_KEYS,
        expert_shared_feed_forward_length=EXPERT_FFN,
        **DELTA_KEYS,
    )
    return Family("qwen3next", keys, whole(layer))


def _reranker() -> Family:
    tensors: list[Tensor] = [*_qwen3().tensors, ("cls.output.weight", (WIDTH, 2), "matrix")]
    keys = plain_keys(**HEAD_KEYS, pooling_type=4, classifier__output_labels=["yes", "no"])
    return Family("qwen3", keys, tensors)


def _embedding() -> Family:
    return Family("qwen3", plain_keys(**HEAD_KEYS, pooling_type=3), _qwen3().tensors)


BERT = bert.Shape(n_layers=2, n_heads=4, width=64, ffn=128, n_ctx=128)
BERT_WORDS = [
    *bert.SPECIALS,
    *(chr(code) for code in range(33, 127) if not chr(code).isupper()),
    *(f"##{chr(code)}" for code in range(ord("a"), ord("z") + 1)),
    *("the", "cat", "sat", "on", "mat", "##ing", "##ed", "hello", "world"),
]


def _bert(pooling: int | None) -> Family:
    tensors = bert.tensor_sizes(BERT, len(BERT_WORDS))
    return Family("bert", bert.keys(BERT, pooling), tensors, bert.vocabulary(BERT_WORDS))


def _bert_reranker() -> Family:
    head: list[Tensor] = [
        ("cls.weight", (BERT.width, BERT.width), "matrix"),
        ("cls.bias", (BERT.width,), "bias"),
        ("cls.output.weight", (BERT.width, 1), "matrix"),
        ("cls.output.bias", (1,), "bias"),
    ]
    plain = _bert(4)
    return plain._replace(tensors=[*plain.tensors, *head])


FAMILIES: dict[str, Callable[[], Family]] = {
    "llama": _llama,
    "qwen3": _qwen3,
    "qwen3moe": _qwen3moe,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "gpt-oss": _gpt_oss,
    "phi3": _phi3,
    "phi3-longrope": _phi3_longrope,
    "mamba": _mamba,
    "mamba2": _mamba2,
    "rwkv7": _rwkv7,
    "jamba": _jamba,
    "lfm2": _lfm2,
    "qwen3next": _qwen3next,
}
"""Models that generate text, one of each architecture that most tests go through."""

OTHERS: dict[str, Callable[[], Family]] = {
    "reranker": _reranker,
    "embedding": _embedding,
    "bert": lambda: _bert(1),
    "bert-cls": lambda: _bert(2),
    "bert-plain": lambda: _bert(None),
    "bert-reranker": _bert_reranker,
}
"""Models that do not generate text: decoders, then encoders."""

UNCUT = ("mamba", "mamba2", "rwkv7", "jamba", "lfm2", "qwen3next")
"""Those of `FAMILIES` whose state cannot be cut: they share prefixes at checkpoints."""
