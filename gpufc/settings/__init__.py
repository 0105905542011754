"""Where each configuration value comes from: flag beats variable beats file beats default.

`resolve` reads the one file that it is given: the caller passes the environment and the flags. A
`~` at the beginning of a path is the home folder, wherever the path comes from. Each mistake is a
`ConfigError` of one line: the key, its source and what to do.

A model's keys can stand in three places of the file. The more specific place wins: `[models.NAME]`,
then a flat key, then `[model]`, which holds defaults for all models. Flat keys, variables and flags
mean the default model: `[models.default]`, else the first table, else the only model. Without any
table they mean the models of `models_dir` too. The network's keys can stand in `[fabric]`.
"""

from gpufc.settings.checking import require_utf8
from gpufc.settings.document import Stamp, require_regular, stamp_of
from gpufc.settings.keys import NAME, TABLES, Key, closest, keys
from gpufc.settings.resolving import resolve
from gpufc.settings.values import HIDDEN, Origin, Settings, Source, Value, row

__all__ = [
    "HIDDEN",
    "NAME",
    "TABLES",
    "Key",
    "Origin",
    "Settings",
    "Source",
    "Stamp",
    "Value",
    "closest",
    "keys",
    "require_regular",
    "require_utf8",
    "resolve",
    "row",
    "stamp_of",
]
