"""Vocabularies of the demo model's tokens under any of llama.cpp's pre-tokenizers."""

import struct
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import llama_cpp.llama_cpp as lc

from engine_worker.backend.llama import backend as _quiet  # noqa: F401  (takes llama.cpp's log)
from engine_worker.backend.llama.vocabulary import Vocabulary
from tests.engine_worker.model_file.gguf_files import pair, text

UINT32, STRING, ARRAY = 4, 8, 9
ALIGNMENT = 32
"""Of the tensors' data in a file that names no other."""
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a metadata value by its type."""

MODULE = "engine_worker.backend.llama.vocabulary_process"

LARGE = ("tekken", "gpt-4o", "deepseek-v3", "deepseek-coder", "llama-bpe", "qwen2")
"""The pre-tokenizers with large regular expressions that most models use."""

ALL = (
    *LARGE,
    *[
        "afmoe",
        "bailingmoe",
        "bloom",
        "chameleon",
        "chatglm-bpe",
        "codeshell",
        "command-r",
        "dbrx",
        "deepseek-llm",
        "deepseek-r1-qwen",
        "default",
        "exaone",
        "exaone4",
        "exaone-moe",
        "falcon",
        "falcon3",
        "gemma4",
        "glm5",
        "gpt-2",
        "gpt3-finnish",
        "granite-docling",
        "grok-2",
        "hunyuan",
        "hunyuan-dense",
        "jais-2",
        "jina-es",
        "jina-v2-code",
        "joyai-llm",
        "kanana2",
        "kimi-k2",
        "kormo",
        "lfm2",
        "llama4",
        "megrez",
        "mellum2",
        "midm-2.0",
        "minerva-7b",
        "minicpm5",
        "minimax-m2",
        "modern-bert",
        "mpt",
        "olmo",
        "phi-2",
        "pixtral",
        "poro-chat",
        "qwen35",
        "refact",
        "roberta-bpe",
        "sarvam-moe",
        "seed-coder",
        "smaug-bpe",
        "smollm",
        "solar-open",
        "stablelm2",
        "starcoder",
        "superbpe",
        "tiny_aya",
        "trillion",
        "ufakzeka",
        "viking",
        "youtu",
    ],
)


def write_vocabulary(
    source: Path, target: Path, *, added: dict[str, int] | None = None, **strings: str
) -> Path:
    """The metadata of `source` without tensors; `strings` replaces `tokenizer.ggml.NAME`, and
    `added` are further numbers under such names."""
    pairs, _ = _pairs(source.read_bytes(), added or {}, strings)
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs)
    target.write_bytes(head + bytes(-len(head) % ALIGNMENT))
    return target


def write_model(source: Path, target: Path, **strings: str) -> Path:
    """`source` with its tensors; `strings` replaces `tokenizer.ggml.NAME`."""
    data = source.read_bytes()
    pairs, end = _pairs(data, {}, strings)
    (n_tensors,) = struct.unpack_from("<Q", data, 8)
    at = end
    for _ in range(n_tensors):
        at = _skip(data, at, STRING)
        (n_dimensions,) = struct.unpack_from("<I", data, at)
        at += 4 + 8 * n_dimensions + 4 + 8  # sizes, type, offset
    head = b"GGUF" + struct.pack("<IQQ", 3, n_tensors, len(pairs)) + b"".join(pairs)
    head += data[end:at]
    with target.open("wb") as file:
        file.write(head + bytes(-len(head) % ALIGNMENT))
        file.write(memoryview(data)[at + -at % ALIGNMENT :])
    return target


def _pairs(data: bytes, added: dict[str, int], strings: dict[str, str]) -> tuple[list[bytes], int]:
    """The metadata with replaced strings and more numbers, and its end in `data`."""
    (n_pairs,) = struct.unpack_from("<Q", data, 16)
    pairs, at = [], 24
    for _ in range(n_pairs):
        start = at
        end = _skip(data, at, STRING)
        key, at = data[at + 8 : end].decode(), end
        (kind,) = struct.unpack_from("<I", data, at)
        at = _skip(data, at + 4, kind)
        name = key.removeprefix("tokenizer.ggml.")
        pairs.append(pair(key, STRING, text(strings[name])) if name in strings else data[start:at])
    for name, number in added.items():
        pairs.append(pair(f"tokenizer.ggml.{name}", UINT32, struct.pack("<I", number)))
    return pairs, at


def _skip(data: bytes, at: int, kind: int) -> int:
    """The end of the value at `at`."""
    if kind == STRING:
        return at + 8 + int(struct.unpack_from("<Q", data, at)[0])
    if kind != ARRAY:
        return at + SIZES[kind]
    inner, count = struct.unpack_from("<IQ", data, at)
    at += 12
    for _ in range(count):
        at = _skip(data, at, inner)
    return at


@lru_cache(maxsize=4)
def load_vocabulary(path: Path) -> Vocabulary:
    params = lc.llama_model_default_params()
    params.vocab_only = True
    model = lc.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise ValueError(f"{path} cannot be loaded")
    return Vocabulary(lc, lc.llama_model_get_vocab(model))


def backend_of(vocabulary: Vocabulary) -> Any:
    """As much of a backend as a `Tokenizer` uses."""
    return SimpleNamespace(
        tokenize=vocabulary.tokenize,
        spelling=vocabulary.spelling,
        special_tokens=vocabulary.special_tokens,
        facts=SimpleNamespace(n_vocab=vocabulary.n_tokens),
        tokenizer_module=MODULE,
    )
