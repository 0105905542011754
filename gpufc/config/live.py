"""The configuration in force, which a reload writes to.

A front has a copy of its own. Its parts share the copy's sections, and read a key that a reload may
change where they need it. So one write reaches all of them, between two events of the loop.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from gpufc.config import Config


def own(config: Config) -> Config:
    """A copy that shares no section with another configuration."""
    fields = msgspec.structs.asdict(config)
    models = dict(fields.pop("models"))
    sections = {name: msgspec.structs.replace(section) for name, section in fields.items()}
    return Config(models=models, **sections)


def write(config: Config, fresh: Config, keys: Iterable[tuple[str, str]]) -> None:
    """Take over the values of these keys (section and name), and all models, from `fresh`."""
    for section, name in keys:
        value: Any = getattr(getattr(fresh, section), name)
        msgspec.structs.force_setattr(getattr(config, section), name, value)
    config.models.clear()
    config.models.update(fresh.models)
