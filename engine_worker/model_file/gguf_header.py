"""A GGUF file's header, read before llama.cpp reads it, with every count and length bounded.

llama.cpp's own loader trusts the header and aborts the process on some faults; a worker answers a
bad file with one clear line. Only the header is read: the size of the tensors' data is checked by
arithmetic. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import os
import re
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from engine_worker.model_file.gguf_reader import Contents, HeaderReader, TensorTable, Value
from engine_worker.model_file.opened import ModelFile, open_model_file
from gpufc.amount import exact
from gpufc.errors import ModelLoadError

LIGHTNING = frozenset({"minimax-01"})
"""Architectures with lightning attention: a layer without keys has a state."""

COMPRESSED = frozenset({"deepseek4"})
"""Architectures that compress the keys of several tokens into one cell."""

_SPLIT_NAME = re.compile(r"^(?P<stem>.+)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf$")


class GgufHeader(Struct, frozen=True, kw_only=True):
    """A checked header. The tensors' data begin at `header_bytes`.

    `metadata` holds scalars, strings and short arrays of numbers. `files` are all files of a split
    model in order, or the one, as they were when their headers were read; `n_tensors` counts the
    tensors of all. `tensor_bytes` are sizes by group: `blk.N` for all tensors of a layer,
    `token_embd`, `output` and so on. `state_layers` have a recurrent state, `key_layers` a
    projection to keys, `indexer_layers` an indexer for the cells that queries attend to.
    """

    metadata: dict[str, Value]
    n_tensors: int
    tensor_bytes: dict[str, int]
    header_bytes: int
    files: tuple[ModelFile, ...]
    state_layers: frozenset[int] = frozenset()
    key_layers: frozenset[int] = frozenset()
    indexer_layers: frozenset[int] = frozenset()

    @property
    def architecture(self) -> str:
        return self.text("general.architecture")

    @property
    def parts(self) -> tuple[Path, ...]:
        """The paths of `files`."""
        return tuple(Path(file.path) for file in self.files)

    @property
    def file_bytes(self) -> int:
        """The size of all files together."""
        return sum(file.size for file in self.files)

    def text(self, key: str) -> str:
        """A string's value, or the empty string."""
        value = self.metadata.get(key, "")
        return value if isinstance(value, str) else ""

    def number(self, key: str, default: int = 0) -> int:
        """A whole number's value, or `default`."""
        value = self.metadata.get(key, default)
        return value if isinstance(value, int) else default

    def per_layer(self, key: str, n_layers: int, default: int) -> Sequence[int]:
        """A value for each layer; the header has one number for all, or an array."""
        value = self.metadata.get(key, default)
        if isinstance(value, tuple):
            return [int(entry) for entry in value]
        return [value if isinstance(value, int) else default] * n_layers


def original_context(header: GgufHeader) -> int | None:
    """The context up to which a LongRoPE model has its short factors; None for other models.

    llama.cpp compares it with the cells of one sequence, not with the tokens of a request.
    """
    if "rope_factors_long" not in header.tensor_bytes:
        return None
    arch = header.architecture
    trained = header.number(f"{arch}.context_length")
    return header.number(f"{arch}.rope.scaling.original_context_length", trained)


def read_header(path: Path) -> GgufHeader:
    """Check the file at `path`, and the other parts of a split model.

    Raises `ModelLoadError` with one line for a file that llama.cpp could not load: not regular, not
    readable, another format, a broken or hostile header, tensors past the end of the file.
    """
    first, file = _read_one(path)
    parts = _parts(path, _count(first, "split.no"), _count(first, "split.count"))
    others = [_read_one(part) for part in parts[1:]]
    tables = [first.tensors, *(contents.tensors for contents, _ in others)]
    tensor_bytes = Counter[str]()
    for table in tables:
        tensor_bytes.update(table.sizes)
    return GgufHeader(
        metadata=first.metadata,
        n_tensors=sum(table.count for table in tables),
        tensor_bytes=dict(tensor_bytes),
        state_layers=_state_layers(first.metadata, tables),
        key_layers=_key_layers(tables),
        indexer_layers=frozenset().union(*(table.indexer_layers for table in tables)),
        header_bytes=first.header_bytes,
        files=(file, *(other for _, other in others)),
    )


def _key_layers(tables: Sequence[TensorTable]) -> frozenset[int]:
    return frozenset().union(*(table.key_layers for table in tables))


def _state_layers(metadata: Mapping[str, Value], tables: Sequence[TensorTable]) -> frozenset[int]:
    """The layers with tensors that have the names of recurrent layers. Lightning attention has no
    names of its own: its layers are those without a projection to keys."""
    if metadata.get("general.architecture") in LIGHTNING:
        layers = frozenset().union(*(table.layers for table in tables))
        return layers - _key_layers(tables)
    return frozenset().union(*(table.state_layers for table in tables))


def _count(contents: Contents, key: str) -> int:
    value = contents.metadata.get(key, 0)
    return value if isinstance(value, int) else 0


def _read_one(path: Path) -> tuple[Contents, ModelFile]:
    fd = open_model_file(path)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise ModelLoadError(f"model path {path} is not a regular file")
        if info.st_size < 24:
            raise ModelLoadError(
                f"model file {path} is not a GGUF file: it has {exact(info.st_size)}"
            )
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as data:
            return HeaderReader(data, path).contents(), ModelFile.behind(path, fd)
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
