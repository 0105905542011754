"""The keys, as `gpufc/config/` declares them."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, get_args

import msgspec
from msgspec import Struct

from gpufc.config import Config
from gpufc.config.marks import Reload

ENV_PREFIX = "GPUFC_"

SHARED, TABLES = "model", "models"
"""The file's sections of models: defaults for all of them, and one table for each."""

NETWORK = "fabric"
"""The section of the network, and the file's table that may hold its keys."""

NETWORK_PREFIX = "network_"
"""What its keys may leave out in that table: `network_share` may be `share` there."""

NAME = "model"
"""The key of a model's served name. A table has its own name instead."""

SIMILAR = 0.75
"""Least likeness (difflib's ratio) for a "did you mean": `prot` is this like `port`."""


class Key(Struct, frozen=True):
    """One configuration key, as declared in `gpufc/config/`."""

    name: str
    section: str
    type: Any
    default: Any
    description: str
    has_flag: bool
    is_path: bool
    """Whether values are paths, separated by `:`."""
    is_secret: bool = False
    """Whether no display may show the value."""
    alias: str | None = None
    """Another name of the flag."""
    reload: Reload = Reload.START
    """What lets a new value take effect while the service runs."""

    @property
    def of_model(self) -> bool:
        """Whether each model has its own value."""
        return self.section == TABLES

    @property
    def of_network(self) -> bool:
        """Whether the network's table may hold it."""
        return self.section == NETWORK

    @property
    def variable(self) -> str:
        """The environment variable of this key."""
        return ENV_PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """The command-line flag, whether or not it exists (`has_flag`)."""
        return "--" + self.name.replace("_", "-")


def keys() -> dict[str, Key]:
    """All keys by name, in order of declaration."""
    return {key.name: key for key in declared()}


def declared() -> Iterator[Key]:
    """Every key, in order of declaration."""
    for section, kind in sections().items():
        for entry in msgspec.structs.fields(kind):
            meta = entry.type.__metadata__[-1]
            extra = meta.extra or {}
            yield Key(
                name=entry.name,
                section=section,
                type=entry.type,
                default=entry.default,
                description=meta.description,
                has_flag=bool(extra.get("flag")),
                is_path=bool(extra.get("path")),
                is_secret=bool(extra.get("secret")),
                alias=extra.get("alias"),
                reload=extra.get("reload", Reload.START),
            )


def sections() -> dict[str, Any]:
    """Each field of `Config` with its struct; for the models, that of one model."""
    fields = msgspec.structs.fields(Config)
    kinds = {field.name: (get_args(field.type) or (field.type,))[-1] for field in fields}
    del kinds["of_folder"]  # it has the keys of `models`
    return kinds


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that differs from `word` in a letter or two; None without one."""
    found = difflib.get_close_matches(word, candidates, n=1, cutoff=SIMILAR)
    return found[0] if found else None
