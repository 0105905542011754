"""A cursor over a GGUF file's header. Every count and length is bounded, every move checked.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import struct
from collections import defaultdict
from pathlib import Path

from msgspec import Struct

from gpufc.amount import exact
from gpufc.errors import ModelLoadError

Value = bool | int | float | str | tuple[int | float | bool, ...]

KNOWN_VERSIONS = (2, 3)
PLAUSIBLE_VERSION = 99
"""A file that claims a higher version is damaged rather than new."""
MAX_KEYS = 65_536
MAX_TENSORS = 1 << 20
MAX_KEY_BYTES = 65_535
MAX_STRING_BYTES = 64 << 20
MAX_STRINGS = 8 << 20
"""Strings in all arrays of a header; the largest vocabularies with merges have under a million."""
MAX_KEPT_ELEMENTS = 4096
"""Longer arrays, and arrays of strings, are checked and skipped."""
MAX_ALIGNMENT = 1 << 20
MAX_DIMENSIONS = 4

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")

# ggml type → (elements of a block, bytes of a block); ggml/src/ggml.c, type_traits
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 36), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
    40: (64, 36), 41: (128, 18), 42: (64, 18),
}  # fmt: skip

_STATE_TENSORS = ("ssm_", "shortconv", "time_mix_")
"""The first letters of the tensors of recurrent layers."""


class Contents(Struct, frozen=True, kw_only=True):
    """The header of one file. The tensors' data begin at `header_bytes`."""

    metadata: dict[str, Value]
    tensors: "TensorTable"
    header_bytes: int


class TensorTable(Struct, frozen=True, kw_only=True):
    """The tensors of one file, without their names.

    `end` is that of the last tensor, from the start of the data. `sizes` are bytes by group. Of
    all `layers`, `state_layers` are those with a recurrent state, `key_layers` those with keys of
    their own, `indexer_layers` those with an indexer.
    """

    count: int
    end: int
    sizes: dict[str, int]
    layers: frozenset[int]
    state_layers: frozenset[int]
    key_layers: frozenset[int]
    indexer_layers: frozenset[int]


class _Tensor(Struct, frozen=True):
    """One entry of the table. `size` is None for a type that is not known."""

    name: str
    offset: int
    size: int | None


def _other_format(start: bytes, path: Path) -> str:
    if path.suffix == ".safetensors" or start[8:10] == b'{"':
        return "it looks like safetensors; convert it with llama.cpp's convert_hf_to_gguf.py"
    if start[:2] == b"PK":
        return "it looks like a PyTorch checkpoint; convert it with convert_hf_to_gguf.py"
    if start[:4] in (b"lmgg", b"tjgg", b"fmgg"):
        return "it is of an older ggml format; find or make a GGUF file of the model"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself with git lfs pull"
    return "it does not begin with GGUF"


class HeaderReader:
    """A cursor over the mapped file. Every move is checked against the file's end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data = data
        self._path = path
        self._at = 0
        self._strings_left = MAX_STRINGS

    def contents(self) -> Contents:
        """Read the whole header. Raises `ModelLoadError`."""
        if self._data[:4] != b"GGUF":
            reason = _other_format(self._data[:32], self._path)
            raise ModelLoadError(f"model file {self._path} is not a GGUF file: {reason}")
        self._at = 4
        version = self._u32()
        if version not in KNOWN_VERSIONS:
            raise self._other_version(version)
        n_tensors, n_keys = self._u64(), self._u64()
        if n_tensors > MAX_TENSORS or n_keys > MAX_KEYS:
            raise self._bad(f"it claims {n_tensors:,} tensors and {n_keys:,} keys")
        metadata = dict(filter(None, (self._pair() for _ in range(n_keys))))
        tensors = [self._tensor() for _ in range(n_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= MAX_ALIGNMENT:
            raise self._bad(f"its alignment is {alignment}")
        start = -(-self._at // alignment) * alignment
        table = _table(tensors, max(0, len(self._data) - start))
        if n_tensors and start + table.end > len(self._data):
            raise ModelLoadError(
                f"model file {self._path} is truncated: it has {exact(len(self._data))}, its"
                f" tensors need {exact(start + table.end)}; download it again"
            )
        return Contents(metadata=metadata, tensors=table, header_bytes=min(start, len(self._data)))

    def _bad(self, reason: str) -> ModelLoadError:
        return ModelLoadError(f"model file {self._path} is damaged: {reason}; download it again")

    def _other_version(self, version: int) -> ModelLoadError:
        if version & 0xFFFF == 0:
            reason = "is in another byte order; get the little-endian edition of the model"
        elif version < min(KNOWN_VERSIONS):
            reason = (
                f"is in GGUF version {version}, which is not read any more; get a newer edition"
            )
        elif version <= PLAUSIBLE_VERSION:
            reason = (
                f"is in GGUF version {version}, newer than this llama.cpp knows;"
                " update llama-cpp-python"
            )
        else:
            return self._bad(f"it claims GGUF version {version:,}")
        return ModelLoadError(f"model file {self._path} {reason}")

    def _advance(self, n_bytes: int) -> int:
        """Move past `n_bytes` and return their start."""
        start = self._at
        if n_bytes > len(self._data) - start:
            raise self._bad(f"its header goes past its end at byte {start:,}")
        self._at = start + n_bytes
        return start

    def _u32(self) -> int:
        return int(_U32.unpack_from(self._data, self._advance(4))[0])

    def _u64(self) -> int:
        return int(_U64.unpack_from(self._data, self._advance(8))[0])

    def _string(self, limit: int) -> str:
        length = self._u64()
        if length > limit:
            raise self._bad(f"a text of {exact(length)} in its header")
        start = self._advance(length)
        return self._data[start : start + length].decode("utf-8", "replace")

    def _pair(self) -> tuple[str, Value] | None:
        key = self._string(MAX_KEY_BYTES)
        kind = self._u32()
        value = self._array(key) if kind == _ARRAY else self._scalar(kind, key)
        return None if value is None else (key, value)

    def _scalar(self, kind: int, key: str) -> Value:
        if kind == _STRING:
            return self._string(MAX_STRING_BYTES)
        layout = _SCALARS.get(kind)
        if layout is None:
            raise self._bad(f"key {key[:80]!r} has the unknown type {kind}")
        value: Value = struct.unpack_from(
            "<" + layout, self._data, self._advance(struct.calcsize(layout))
        )[0]
        return value

    def _array(self, key: str) -> tuple[int | float | bool, ...] | None:
        kind, count = self._u32(), self._u64()
        if kind == _STRING:
            self._skip_strings(count)
            return None
        layout = _SCALARS.get(kind)
        if layout is None:
            raise self._bad(f"array {key[:80]!r} has elements of the unknown type {kind}")
        start = self._advance(count * struct.calcsize(layout))
        if count > MAX_KEPT_ELEMENTS:
            return None
        return struct.unpack_from(f"<{count}{layout}", self._data, start)

    def _skip_strings(self, count: int) -> None:
        """Skip an array of strings. The only long loop: it visits every word of a vocabulary."""
        self._strings_left -= count
        if self._strings_left < 0:
            raise self._bad(f"an array of {count:,} texts in its header")
        data, at, unpack = self._data, self._at, _U64.unpack_from
        last = len(data) - 8
        for _ in range(count):
            if at > last:
                break
            at += 8 + unpack(data, at)[0]
        else:
            self._advance(at - self._at)
            return
        raise self._bad(f"its header goes past its end at byte {self._at:,}")

    def _tensor(self) -> _Tensor:
        name = self._string(MAX_KEY_BYTES)
        n_dimensions = self._u32()
        if n_dimensions > MAX_DIMENSIONS:
            raise self._bad(f"tensor {name[:80]!r} has {n_dimensions} dimensions")
        n_elements = 1
        for _ in range(n_dimensions):
            n_elements *= self._u64()
        kind, offset = self._u32(), self._u64()
        if kind not in _BLOCKS:
            return _Tensor(name, offset, None)
        per_block, block_bytes = _BLOCKS[kind]
        return _Tensor(name, offset, -(-n_elements // per_block) * block_bytes)


def _table(tensors: list[_Tensor], data_bytes: int) -> TensorTable:
    """A tensor of an unknown type takes the bytes up to the next one, or to the end of the file.
    It must at least begin within the file."""
    sizes = defaultdict[str, int](int)
    layers, states, keys, indexers = set[int](), set[int](), set[int](), set[int]()
    end, next_offset = 0, data_bytes
    for tensor in sorted(tensors, key=lambda each: each.offset, reverse=True):
        size = max(0, next_offset - tensor.offset) if tensor.size is None else tensor.size
        sizes[_group(tensor.name)] += size
        end, next_offset = max(end, tensor.offset + size), tensor.offset
        layer, part = _layer(tensor.name)
        if part:
            layers.add(layer)
        if part.startswith(_STATE_TENSORS):
            states.add(layer)
        elif part == "attn_k":
            keys.add(layer)
        elif part == "indexer":
            indexers.add(layer)
    return TensorTable(
        count=len(tensors),
        end=end,
        sizes=dict(sizes),
        layers=frozenset(layers),
        state_layers=frozenset(states),
        key_layers=frozenset(keys),
        indexer_layers=frozenset(indexers),
    )


def _layer(name: str) -> tuple[int, str]:
    """(7, `attn_k`) for `blk.7.attn_k.weight`; (-1, "") for a tensor of no layer."""
    first, _, rest = name.partition(".")
    number, _, part = rest.partition(".")
    if first != "blk" or not number.isdecimal() or len(number) > 9:
        return -1, ""
    return int(number), part.partition(".")[0]


def _group(name: str) -> str:
    """`blk.7` for a tensor of that layer, else the name without `.weight` and the like."""
    first, _, rest = name.partition(".")
    return f"blk.{rest.partition('.')[0]}" if first == "blk" else first
