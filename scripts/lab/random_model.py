"""A model of a common size with random weights: for speed, where a real one cannot be had.

    python scripts/lab/random_model.py SOURCE.gguf TARGET.gguf --shape 1b

Takes the tokenizer of SOURCE (a GGUF file of llama's architecture, such as the demo model) and
writes a llama of the given shape, all matrices Q4_0 with random blocks of the right variance. It
computes exactly as a trained model of that shape does, and says nonsense. GGUF:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import argparse
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

ALIGNMENT = 32
BLOCK = 32
"""Weights in a Q4_0 block: a half-precision scale and 16 bytes of two weights each."""
F32, Q4_0 = 0, 2
UINT32, STRING, ARRAY = 4, 8, 9
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a metadata value by its type."""
CHUNK_BLOCKS = 1 << 20


class Shape(NamedTuple):
    """Of a llama: layers, widths, and heads of queries and of keys and values."""

    n_layers: int
    n_embd: int
    n_ff: int
    n_heads: int
    n_kv_heads: int


SHAPES = {
    "1b": Shape(16, 2048, 8192, 32, 8),
    "3b": Shape(28, 3072, 8192, 24, 8),
    "8b": Shape(32, 4096, 14336, 32, 8),
}


class Tensor(NamedTuple):
    """`dims` in ggml's order: the row length first."""

    name: str
    dims: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        count = int(np.prod(self.dims))
        return count * 4 if len(self.dims) == 1 else count // BLOCK * 18


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    shape = SHAPES[args.shape]
    pairs, n_vocab = metadata(args.source.read_bytes(), shape)
    write(args.target, pairs, list(tensors(shape, n_vocab)), np.random.default_rng(args.seed))


def metadata(source: bytes, shape: Shape) -> tuple[list[bytes], int]:
    """The source's key-value pairs with the numbers of `shape`, and its vocabulary's size."""
    numbers = {
        "llama.block_count": shape.n_layers,
        "llama.embedding_length": shape.n_embd,
        "llama.feed_forward_length": shape.n_ff,
        "llama.attention.head_count": shape.n_heads,
        "llama.attention.head_count_kv": shape.n_kv_heads,
        "llama.rope.dimension_count": shape.n_embd // shape.n_heads,
        "llama.attention.key_length": shape.n_embd // shape.n_heads,
        "llama.attention.value_length": shape.n_embd // shape.n_heads,
    }
    (n_pairs,) = struct.unpack_from("<Q", source, 16)
    kept, n_vocab, at = [], 0, 24
    for _ in range(n_pairs):
        start = at
        key, at = read_text(source, at)
        (kind,) = struct.unpack_from("<I", source, at)
        if key == "tokenizer.ggml.tokens":
            (n_vocab,) = struct.unpack_from("<Q", source, at + 8)
        at = skip(source, at + 4, kind)
        if key not in numbers:
            kept.append(source[start:at])
    for key, number in numbers.items():
        kept.append(text(key) + struct.pack("<II", UINT32, number))
    return kept, n_vocab


def read_text(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, at)
    return data[at + 8 : at + 8 + length].decode(), at + 8 + length


def skip(data: bytes, at: int, kind: int) -> int:
    """The end of the value at `at`."""
    if kind == STRING:
        return read_text(data, at)[1]
    if kind == ARRAY:
        inner, count = struct.unpack_from("<IQ", data, at)
        at += 12
        if inner in SIZES:
            return at + SIZES[inner] * int(count)
        for _ in range(count):
            at = skip(data, at, inner)
        return at
    return at + SIZES[kind]


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def tensors(shape: Shape, n_vocab: int) -> Iterator[Tensor]:
    """All of a llama with tied embeddings."""
    kv = shape.n_embd // shape.n_heads * shape.n_kv_heads
    yield Tensor("token_embd.weight", (shape.n_embd, n_vocab))
    yield Tensor("output_norm.weight", (shape.n_embd,))
    for layer in range(shape.n_layers):
        prefix = f"blk.{layer}."
        yield Tensor(prefix + "attn_norm.weight", (shape.n_embd,))
        yield Tensor(prefix + "attn_q.weight", (shape.n_embd, shape.n_embd))
        yield Tensor(prefix + "attn_k.weight", (shape.n_embd, kv))
        yield Tensor(prefix + "attn_v.weight", (shape.n_embd, kv))
        yield Tensor(prefix + "attn_output.weight", (shape.n_embd, shape.n_embd))
        yield Tensor(prefix + "ffn_norm.weight", (shape.n_embd,))
        yield Tensor(prefix + "ffn_gate.weight", (shape.n_embd, shape.n_ff))
        yield Tensor(prefix + "ffn_up.weight", (shape.n_embd, shape.n_ff))
        yield Tensor(prefix + "ffn_down.weight", (shape.n_ff, shape.n_embd))


def write(target: Path, pairs: list[bytes], parts: list[Tensor], rng: np.random.Generator) -> None:
    infos, offset = [], 0
    for part in parts:
        kind = F32 if len(part.dims) == 1 else Q4_0
        dims = struct.pack(f"<I{len(part.dims)}Q", len(part.dims), *part.dims)
        infos.append(text(part.name) + dims + struct.pack("<IQ", kind, offset))
        offset += -(-part.n_bytes // ALIGNMENT) * ALIGNMENT
    head = b"GGUF" + struct.pack("<IQQ", 3, len(parts), len(pairs)) + b"".join(pairs + infos)
    with target.open("wb") as file:
        file.write(head + bytes(-len(head) % ALIGNMENT))
        for part in parts:
            write_weights(file, part, rng)
            file.write(bytes(-part.n_bytes % ALIGNMENT))


def write_weights(file: BinaryIO, part: Tensor, rng: np.random.Generator) -> None:
    if len(part.dims) == 1:
        file.write(np.ones(part.dims, np.float32).tobytes())
        return
    n_blocks = part.n_bytes // 18
    # weights of a block are scale × (-8 … 7), of standard deviation 4.6; a matrix keeps variance
    scale = np.array([1 / (4.6 * part.dims[0] ** 0.5)], np.float16).tobytes()
    for start in range(0, n_blocks, CHUNK_BLOCKS):
        blocks = rng.integers(0, 256, (min(CHUNK_BLOCKS, n_blocks - start), 18), np.uint8)
        blocks[:, :2] = np.frombuffer(scale, np.uint8)
        file.write(blocks.tobytes())


if __name__ == "__main__":
    main()
