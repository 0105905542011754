"""Effective values and their sources, and how a display shows them."""

from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from gpufc.config import Config, PluginConfig
from gpufc.settings.document import Stamp
from gpufc.settings.keys import Key


class Origin(StrEnum):
    """Kinds of places that values come from, weakest first."""

    DEFAULT = "default"
    FILE = "file"
    VARIABLE = "variable"
    FLAG = "flag"


class Source(Struct, frozen=True):
    """The place of one value. `name` is the file, variable or flag; `table` a table of the file."""

    origin: Origin
    name: str = ""
    table: str = ""

    def __str__(self) -> str:
        """As messages name it, such as `variable GPUFC_PORT` or `file F [models.chat]`."""
        table = f"[{self.table}]" if self.table else ""
        return " ".join(filter(None, (self.origin.value, self.name, table)))


DEFAULT = Source(Origin.DEFAULT)


class Value(Struct, frozen=True):
    """An effective value and its source. `model` is a name in `Config.models`; None for a key of
    the whole service."""

    key: Key
    value: Any
    source: Source
    model: str | None = None


HIDDEN = "(hidden)"
"""Stands for a secret's value."""


def row(value: Value) -> dict[str, Any]:
    """A value as plain data: a row of `config show --json`."""
    is_hidden = value.key.is_secret and value.value is not None
    return {
        "key": value.key.name,
        "value": HIDDEN if is_hidden else msgspec.to_builtins(_shown(value.value)),
        "source": str(value.source),
        "model": value.model,
    }


def _shown(value: Any) -> Any:
    """A value without the options of plugins."""
    if not isinstance(value, tuple):
        return value
    return tuple(one.hiding(HIDDEN) if isinstance(one, PluginConfig) else one for one in value)


class Settings(Struct, frozen=True):
    """The configuration in force and the source of each value, in order of declaration."""

    config: Config
    values: tuple[Value, ...]
    stamp: Stamp | None = None
    """That of the file which was read; None without a file, and for a pipe."""
