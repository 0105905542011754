"""A model of a common size with random weights: for speed, where a real one cannot be had.

    python scripts/lab/random_model.py SOURCE.gguf TARGET.gguf --shape 1b --type q4_0

Takes the tokenizer of SOURCE (a GGUF file of llama's architecture, such as the demo model) and
writes a llama of the given shape, all matrices of one type with random blocks of the right
variance. It computes exactly as a trained model of that shape does, and says nonsense. GGUF:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import argparse
import struct
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

ALIGNMENT = 32
F32 = 0
UINT32, STRING, ARRAY = 4, 8, 9
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a metadata value by its type."""
POOL_BLOCKS = 2_097_143
"""Random blocks that all matrices of one row length share. A prime: the rows of a matrix of fewer
rows all start at different blocks."""

Blocks = npt.NDArray[np.uint8]


class Type(NamedTuple):
    """Of matrices: ggml's number for it, weights and bytes of a block.

    `draw` gives so many random blocks for rows of a length. Their weights have a standard deviation
    of 1 / sqrt(row length), with which a matrix keeps variance.
    """

    number: int
    n_weights: int
    n_bytes: int
    draw: Callable[[np.random.Generator, int, int], Blocks]


def q4_0_blocks(rng: np.random.Generator, n_blocks: int, row: int) -> Blocks:
    """A half-precision scale and 16 bytes of two weights each: scale × (-8 … 7), of standard
    deviation 4.6."""
    blocks = rng.integers(0, 256, (n_blocks, 18), np.uint8)
    blocks[:, :2] = np.array([1 / (4.6 * row**0.5)], np.float16).view(np.uint8)
    return blocks


def f16_blocks(rng: np.random.Generator, n_blocks: int, row: int) -> Blocks:
    weights = rng.standard_normal((n_blocks, 1), np.float32) / np.float32(row**0.5)
    return weights.astype(np.float16).view(np.uint8)


TYPES = {"q4_0": Type(2, 32, 18, q4_0_blocks), "f16": Type(1, 1, 2, f16_blocks)}


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
    def is_matrix(self) -> bool:
        return len(self.dims) > 1

    def n_bytes(self, type_: Type) -> int:
        """With matrices of this type."""
        count = int(np.prod(self.dims))
        return count // type_.n_weights * type_.n_bytes if self.is_matrix else count * 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--type", choices=TYPES, default="q4_0", help="of the matrices (q4_0)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    make(args.source, args.target, SHAPES[args.shape], TYPES[args.type], rng)


def make(source: Path, target: Path, shape: Shape, type_: Type, rng: np.random.Generator) -> None:
    """Write a model of this shape, with matrices of this type and the tokenizer of `source`."""
    pairs, n_vocab = metadata(source.read_bytes(), shape)
    write(target, pairs, list(tensors(shape, n_vocab)), type_, rng)


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


def write(
    target: Path, pairs: list[bytes], parts: list[Tensor], type_: Type, rng: np.random.Generator
) -> None:
    @cache
    def pool(row: int) -> bytes:
        return type_.draw(rng, POOL_BLOCKS, row).tobytes()

    head = header(pairs, parts, type_)
    with target.open("wb") as file:
        file.write(head + bytes(-len(head) % ALIGNMENT))
        for part in parts:
            n_bytes = part.n_bytes(type_)
            if part.is_matrix:
                start = int(rng.integers(POOL_BLOCKS)) * type_.n_bytes
                write_from(file, memoryview(pool(part.dims[0])), start, n_bytes)
            else:
                file.write(np.ones(part.dims, np.float32).tobytes())
            file.write(bytes(-n_bytes % ALIGNMENT))


def header(pairs: list[bytes], parts: list[Tensor], type_: Type) -> bytes:
    infos, offset = [], 0
    for part in parts:
        number = type_.number if part.is_matrix else F32
        dims = struct.pack(f"<I{len(part.dims)}Q", len(part.dims), *part.dims)
        infos.append(text(part.name) + dims + struct.pack("<IQ", number, offset))
        offset += -(-part.n_bytes(type_) // ALIGNMENT) * ALIGNMENT
    return b"GGUF" + struct.pack("<IQQ", 3, len(parts), len(pairs)) + b"".join(pairs + infos)


def write_from(file: BinaryIO, pool: memoryview, start: int, n_bytes: int) -> None:
    """Write so many bytes of the pool from `start` on, and from its beginning again."""
    while n_bytes:
        n_bytes -= file.write(pool[start : start + n_bytes])
        start = 0


if __name__ == "__main__":
    main()
