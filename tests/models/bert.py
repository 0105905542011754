"""BERT in two forms: the tensors and keys of a GGUF file, and a forward pass in numpy.

The forward pass is the reference of the embedding tests. It follows Devlin et al., "BERT:
Pre-training of Deep Bidirectional Transformers", and uses nothing of llama.cpp.
"""

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gguf import TokenType

Weights = Mapping[str, np.ndarray]
"""Tensors by their names in a GGUF file. A matrix has a row for each of its outputs."""

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Shape(NamedTuple):
    """The sizes of one model."""

    n_layers: int
    n_heads: int
    width: int
    ffn: int
    n_ctx: int
    epsilon: float = 1e-12


def keys(shape: Shape, pooling: int | None) -> dict[str, Any]:
    """The keys of the header, without the architecture's name in front."""
    found: dict[str, Any] = {
        "block_count": shape.n_layers,
        "context_length": shape.n_ctx,
        "embedding_length": shape.width,
        "feed_forward_length": shape.ffn,
        "attention.head_count": shape.n_heads,
        "attention.layer_norm_epsilon": shape.epsilon,
        "attention.causal": False,
    }
    return found if pooling is None else found | {"pooling_type": pooling}


def vocabulary(words: Sequence[str]) -> dict[str, Any]:
    """The keys of a WordPiece tokenizer. A word that begins with `##` goes on with the one before.

    llama.cpp marks the beginnings of words instead.
    """
    types = [
        int(TokenType.UNKNOWN if word == "[UNK]" else TokenType.CONTROL)
        if word in SPECIALS
        else int(TokenType.NORMAL)
        for word in words
    ]
    ids = {
        f"tokenizer.ggml.{name}_token_id": words.index(word)
        for name, word in (
            ("padding", "[PAD]"),
            ("unknown", "[UNK]"),
            ("cls", "[CLS]"),
            ("bos", "[CLS]"),
            ("seperator", "[SEP]"),
            ("eos", "[SEP]"),
            ("mask", "[MASK]"),
        )
    }
    return ids | {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.tokens": [_marked(word) for word in words],
        "tokenizer.ggml.token_type": types,
    }


def _marked(word: str) -> str:
    if word.startswith("##"):
        return word[2:]
    return word if word in SPECIALS else "\u2581" + word


def tokens(text: str, words: Mapping[str, int]) -> list[int]:
    """The token ids of a text by WordPiece without upper case and accents, specials around them."""
    found = [words["[CLS]"]]
    for word in _words(text):
        found += _pieces(word, words)
    return [*found, words["[SEP]"]]


def _words(text: str) -> list[str]:
    plain = unicodedata.normalize("NFD", text.lower())
    kept = "".join(c for c in plain if unicodedata.category(c) != "Mn")
    return "".join(f" {c} " if _stands_alone(c) else c for c in kept).split()


def _stands_alone(char: str) -> bool:
    is_symbol = unicodedata.category(char).startswith("P") or char in "$+<=>^`|~"
    return is_symbol or 0x4E00 <= ord(char) <= 0x9FFF


def _pieces(word: str, words: Mapping[str, int]) -> list[int]:
    found: list[int] = []
    start = 0
    while start < len(word):
        ends = range(len(word), start, -1)
        prefix = "##" if start else ""
        end = next((end for end in ends if prefix + word[start:end] in words), None)
        if end is None:
            return [words["[UNK]"]]
        found.append(words[prefix + word[start:end]])
        start = end
    return found


def hidden_states(weights: Weights, shape: Shape, ids: Sequence[int]) -> np.ndarray:
    """The last layer's vector of each token."""
    x = weights["token_embd.weight"][list(ids)] + weights["position_embd.weight"][: len(ids)]
    x = _norm(x + weights["token_types.weight"][0], weights, "token_embd_norm", shape)
    for layer in range(shape.n_layers):
        at = f"blk.{layer}."
        q, k, v = (_heads(_linear(x, weights, f"{at}attn_{name}"), shape) for name in "qkv")
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(shape.width // shape.n_heads)
        mixed = (_softmax(scores) @ v).transpose(1, 0, 2).reshape(len(ids), shape.width)
        x = _norm(
            x + _linear(mixed, weights, f"{at}attn_output"), weights, f"{at}attn_output_norm", shape
        )
        inner = _gelu(_linear(x, weights, f"{at}ffn_up"))
        x = _norm(
            x + _linear(inner, weights, f"{at}ffn_down"), weights, f"{at}layer_output_norm", shape
        )
    return x


def embedding(
    weights: Weights, shape: Shape, ids: Sequence[int], *, first_only: bool = False
) -> np.ndarray:
    """The mean of the tokens' vectors, or the first one, of length 1."""
    states = hidden_states(weights, shape, ids)
    pooled = states[0] if first_only else states.mean(axis=0)
    return np.asarray(pooled / np.linalg.norm(pooled))


def _linear(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    return np.asarray(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])


def _norm(x: np.ndarray, weights: Weights, name: str, shape: Shape) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + shape.epsilon)
    return np.asarray(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])


def _heads(x: np.ndarray, shape: Shape) -> np.ndarray:
    return x.reshape(len(x), shape.n_heads, -1).transpose(1, 0, 2)


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def _gelu(x: np.ndarray) -> np.ndarray:
    erf = np.vectorize(math.erf)
    return np.asarray(0.5 * x * (1 + erf(x / math.sqrt(2))))


def tensor_sizes(shape: Shape, n_vocab: int) -> list[tuple[str, tuple[int, ...], str]]:
    """The tensors of a made-up model, as `layers.Tensor`."""
    width, ffn = shape.width, shape.ffn
    found: list[tuple[str, tuple[int, ...], str]] = [
        ("token_embd.weight", (width, n_vocab), "embedding"),
        ("token_types.weight", (width, 2), "bias"),
        ("position_embd.weight", (width, shape.n_ctx), "bias"),
        *_norm_sizes("token_embd_norm", width),
    ]
    for layer in range(shape.n_layers):
        at = f"blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            found += _linear_sizes(f"{at}{name}", width, width)
        found += _linear_sizes(f"{at}ffn_up", width, ffn)
        found += _linear_sizes(f"{at}ffn_down", ffn, width)
        for name in ("attn_output_norm", "layer_output_norm"):
            found += _norm_sizes(f"{at}{name}", width)
    return found


def _linear_sizes(name: str, n_in: int, n_out: int) -> Iterable[tuple[str, tuple[int, ...], str]]:
    return [(f"{name}.weight", (n_in, n_out), "matrix"), (f"{name}.bias", (n_out,), "bias")]


def _norm_sizes(name: str, width: int) -> Iterable[tuple[str, tuple[int, ...], str]]:
    return [(f"{name}.weight", (width,), "norm"), (f"{name}.bias", (width,), "bias")]
