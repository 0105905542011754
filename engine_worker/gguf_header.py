"""Reading a GGUF file's header before llama.cpp does, with every count and length bounded.

llama.cpp's own loader trusts what a header says and aborts the process on some of it; a worker
should answer a bad file with one clear line. Only the header is touched: the tensors' data are
checked by arithmetic. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import os
import re
import stat
import struct
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from gpufc.amount import exact
from gpufc.errors import ModelLoadError

Value = bool | int | float | str | tuple[int | float | bool, ...]

KNOWN_VERSIONS = (2, 3)
PLAUSIBLE_VERSION = 99
"""What claims a higher one is damaged rather than new."""
MAX_KEYS = 65_536
MAX_TENSORS = 1 << 20
MAX_KEY_BYTES = 65_535
MAX_STRING_BYTES = 64 << 20
MAX_STRINGS = 8 << 20
"""Strings in all arrays of a header; the largest vocabularies with merges have under a million."""
MAX_KEPT_ELEMENTS = 4096
"""Longer arrays, and arrays of strings, are checked and passed over."""
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
}  # fmt: skip

_SPLIT_NAME = re.compile(r"^(?P<stem>.+)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf$")


class GgufHeader(Struct, frozen=True, kw_only=True):
    """What the header says. `header_bytes` is where the tensors' data begin.

    `metadata` holds scalars, strings and short arrays of numbers. `parts` are all files of a
    split model in order, or just the one.
    """

    metadata: dict[str, Value]
    n_tensors: int
    header_bytes: int
    file_bytes: int
    parts: tuple[Path, ...]

    @property
    def architecture(self) -> str:
        return self.text("general.architecture")

    def text(self, key: str) -> str:
        """A string's value, or the empty string."""
        value = self.metadata.get(key, "")
        return value if isinstance(value, str) else ""

    def number(self, key: str, default: int = 0) -> int:
        """A whole number's value, or `default`."""
        value = self.metadata.get(key, default)
        return value if isinstance(value, int) else default

    def per_layer(self, key: str, n_layers: int, default: int) -> Sequence[int]:
        """A figure that is one number for all layers, or an array with one for each."""
        value = self.metadata.get(key, default)
        if isinstance(value, tuple):
            return [int(entry) for entry in value]
        return [value if isinstance(value, int) else default] * n_layers


def read_header(path: Path) -> GgufHeader:
    """Check the file at `path`, and those beside it that it is split into.

    Raises `ModelLoadError` with one line for anything that llama.cpp could not load: no regular
    readable file, another format, a broken or hostile header, tensors past the end of the file.
    """
    header = _read_one(path)
    parts = _parts(path, header.number("split.no"), header.number("split.count"))
    for part in parts[1:]:
        _read_one(part)
    return GgufHeader(
        metadata=header.metadata,
        n_tensors=header.n_tensors,
        header_bytes=header.header_bytes,
        file_bytes=sum(part.stat().st_size for part in parts),
        parts=parts,
    )


def _read_one(path: Path) -> GgufHeader:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ModelLoadError(f"model file {path} does not exist") from None
    except OSError as err:
        raise ModelLoadError(f"model file {path} cannot be read: {err.strerror}") from err
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise ModelLoadError(f"model path {path} is not a regular file")
        if info.st_size < 24:
            raise ModelLoadError(
                f"model file {path} is not a GGUF file: it has {exact(info.st_size)}"
            )
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as data:
            return _Reader(data, path).header()
    except OSError as err:
        raise ModelLoadError(f"model file {path} cannot be read: {err.strerror}") from err
    finally:
        os.close(fd)


def _parts(path: Path, number: int, count: int) -> tuple[Path, ...]:
    if count <= 1:
        return (path,)
    match = _SPLIT_NAME.match(path.name)
    if match is None or int(match["count"]) != count:
        raise ModelLoadError(
            f"model file {path} is one of {count} parts and must be named NAME-00001-of-{count:05d}"
            ".gguf; or merge the parts with llama-gguf-split --merge"
        )
    names = [f"{match['stem']}-{no:05d}-of-{count:05d}.gguf" for no in range(1, count + 1)]
    if number != 0:
        raise ModelLoadError(
            f"model file {path} is part {number + 1} of {count}; give the first part, {names[0]}"
        )
    return tuple(path.with_name(name) for name in names)


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


class _Reader:
    """A cursor over the mapped file. Every move is checked against the file's end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data = data
        self._path = path
        self._at = 0
        self._strings_left = MAX_STRINGS

    def header(self) -> GgufHeader:
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
        end = self._tensors_end(n_tensors)
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= MAX_ALIGNMENT:
            raise self._bad(f"its alignment is {alignment}")
        start = -(-self._at // alignment) * alignment
        if n_tensors and start + end > len(self._data):
            raise ModelLoadError(
                f"model file {self._path} is truncated: it has {exact(len(self._data))}, its"
                f" tensors need {exact(start + end)}; download it again"
            )
        return GgufHeader(
            metadata=metadata,
            n_tensors=n_tensors,
            header_bytes=min(start, len(self._data)),
            file_bytes=len(self._data),
            parts=(self._path,),
        )

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
        """Pass over `n_bytes` and return where they begin."""
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
        """The one long loop: a vocabulary of 50,000 and its merges take about 20 ms."""
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

    def _tensors_end(self, n_tensors: int) -> int:
        """The end of the last tensor, in bytes from where the data begin."""
        end = 0
        for _ in range(n_tensors):
            name = self._string(MAX_KEY_BYTES)
            n_dimensions = self._u32()
            if n_dimensions > MAX_DIMENSIONS:
                raise self._bad(f"tensor {name[:80]!r} has {n_dimensions} dimensions")
            n_elements = 1
            for _ in range(n_dimensions):
                n_elements *= self._u64()
            kind, offset = self._u32(), self._u64()
            # a type of a newer llama.cpp has an unknown size, but begins within the file at least
            per_block, block_bytes = _BLOCKS.get(kind, (1, 0))
            end = max(end, offset + -(-n_elements // per_block) * block_bytes)
        return end
