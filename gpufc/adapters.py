"""LoRA adapters: small changes of a model's weights, loaded beside it and chosen by a request."""

from pathlib import PurePath
from typing import Annotated

from msgspec import Meta, Struct

from gpufc.errors import ConfigError

MAX_ADAPTERS = 64
"""Of one model."""


class AdapterUse(Struct, frozen=True, array_like=True):
    """One loaded adapter for one sequence. `scale` multiplies its effect."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    scale: Annotated[float, Meta(ge=-100.0, le=100.0)] = 1.0


Adapters = tuple[AdapterUse, ...]
"""The adapters of a sequence; empty for the model as it is."""


class AdapterFile(Struct, frozen=True):
    """An adapter to load, under the name that requests choose it by."""

    name: str
    path: str


def adapter_files(entries: tuple[str, ...]) -> tuple[AdapterFile, ...]:
    """The adapters of a configuration: `NAME=PATH`, or a path, which names it by its file.

    Raises `ConfigError` for an empty part or for one name given twice.
    """
    found: dict[str, AdapterFile] = {}
    for entry in entries:
        name, equals, path = entry.partition("=")
        if not equals:
            name, path = PurePath(entry).stem, entry
        if not (name and path):
            raise ConfigError(f"adapters: {entry!r} is neither NAME=PATH nor a path")
        if name in found:
            raise ConfigError(f"adapters: {name!r} is given twice")
        found[name] = AdapterFile(name, path)
    return tuple(found.values())
