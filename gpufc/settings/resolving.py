"""Finds every value in the file, the variables and the flags, and assembles the configuration."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from gpufc.config import DEFAULT_MODEL, Config, ModelConfig
from gpufc.errors import ConfigError
from gpufc.settings.checking import checked
from gpufc.settings.document import read
from gpufc.settings.keys import (
    ENV_PREFIX,
    NAME,
    NETWORK,
    NETWORK_PREFIX,
    SHARED,
    TABLES,
    Key,
    closest,
    keys,
    sections,
)
from gpufc.settings.values import DEFAULT, Origin, Settings, Source, Value

FOLDER = ""
"""Stands for the models of `models_dir`, where models have names. No table has this name."""

OWN = frozenset({"model_path", "model", "aliases", "draft_model_path", "adapters", "pinned"})
"""Keys that cannot be the same for all models of a folder."""

NOT_KEYS = frozenset({"GPUFC_CONFIG", "GPUFC_API_KEY"})
"""Variables with the prefix that are read elsewhere: the file's place, and the client's key."""


class _Given(Struct, frozen=True):
    """A raw value for `model`, or for all models if that is None."""

    key: Key
    raw: Any
    source: Source
    model: str | None = None


def resolve(*, flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None) -> Settings:
    """The configuration in force.

    `flags` maps the names of keys to the flags' values; None counts as not given.
    `file` is a TOML file that must exist, or None. Raises `ConfigError`.
    """
    known = keys()
    document, stamp = read(file) if file is not None else ({}, None)
    models = _model_names(document, file)
    default = DEFAULT_MODEL if DEFAULT_MODEL in models else models[0]
    values = {
        (model, key.name): Value(key, key.default, DEFAULT, model)
        for key in known.values()
        for model in ((*models, FOLDER) if key.of_model else (None,))
    }
    is_alone = TABLES not in document
    for given in (
        *_of_file(document, file, known, default),
        *_of_environment(environ, known, default),
        *_of_flags(flags, known, default),
    ):
        wanted = (given.model,) if given.model or not given.key.of_model else models
        if given.key.of_model and (is_alone or given.model is None) and given.key.name not in OWN:
            wanted = (*wanted, FOLDER)
        for model in wanted:
            values[model, given.key.name] = checked(given.key, given.raw, given.source, model)
    shown = tuple(value for value in values.values() if value.model != FOLDER)
    return Settings(_assemble(values, models), shown, stamp)


def _model_names(document: Mapping[str, Any], file: Path | None) -> Sequence[str]:
    """The names in `Config.models`. Raises `ConfigError` for tables that are none."""
    tables = document.get(TABLES, {})
    if not isinstance(tables, dict) or not all(isinstance(one, dict) for one in tables.values()):
        raise ConfigError(f"[{TABLES}] in file {file} holds tables only, such as [models.chat]")
    if "" in tables:
        raise ConfigError(f"a table of [{TABLES}] in file {file} has no name; name it")
    if tables and isinstance(document.get(NAME), str):
        raise ConfigError(
            f"the key {NAME} in file {file} names a model, and so does its table"
            f" [{TABLES}.{next(iter(tables))}]: leave the key out"
        )
    return tuple(tables) or (DEFAULT_MODEL,)


def _of_file(
    document: Mapping[str, Any], file: Path | None, known: Mapping[str, Key], default: str
) -> Iterator[_Given]:
    """The file's values, those of a less specific place first."""
    shared = document.get(SHARED)
    if isinstance(shared, dict):
        yield from _of_table(shared, Source(Origin.FILE, str(file), SHARED), known, None)
    source = Source(Origin.FILE, str(file))
    for name, raw in document.items():
        if name not in (TABLES, NETWORK) and not (name == SHARED and isinstance(raw, dict)):
            key = _find(name, known, what="key", place=str(source))
            yield _Given(key, raw, source, default if key.of_model else None)
    if NETWORK in document:
        source = Source(Origin.FILE, str(file), NETWORK)
        yield from _of_network(document[NETWORK], source, known, document.keys())
    for model, table in document.get(TABLES, {}).items():
        source = Source(Origin.FILE, str(file), f"{TABLES}.{model}")
        if model != DEFAULT_MODEL:
            yield _Given(known[NAME], model, source, model)
        yield from _of_table(table, source, known, model)


def _of_table(
    table: Mapping[str, Any], source: Source, known: Mapping[str, Key], model: str | None
) -> Iterator[_Given]:
    of_model = {name: key for name, key in known.items() if key.of_model and name != NAME}
    for name, raw in table.items():
        if name == NAME:
            raise ConfigError(
                f"{NAME} ({source}): a model is served under the name of its table; write"
                f" [{TABLES}.{raw}] for it"
            )
        if name in known and not known[name].of_model:
            raise ConfigError(
                f"{name} ({source}) is no key of a model; put it at the beginning of the file,"
                " before all tables"
            )
        yield _Given(_find(name, of_model, what="key", place=str(source)), raw, source, model)


def _of_network(
    table: Any, source: Source, known: Mapping[str, Key], flat: Collection[str]
) -> Iterator[_Given]:
    """The values of the network's table. `flat` are the file's keys outside all tables.

    A key stands in one place only: neither of two values would plainly win.
    """
    if not isinstance(table, dict):
        raise ConfigError(
            f"{NETWORK} in file {source.name} is a table: write [{NETWORK}], and the network's keys"
            " below it"
        )
    own = {name: key for name, key in known.items() if key.of_network}
    short = {name.removeprefix(NETWORK_PREFIX): key for name, key in own.items()}
    seen = set(flat)
    for name, raw in table.items():
        if name in known and name not in own:
            raise ConfigError(
                f"{name} ({source}) is no key of the network; put it at the beginning of the file,"
                " before all tables"
            )
        key = _find(name, short | own, what="key", place=str(source))
        if key.name in seen:
            raise ConfigError(f"{key.name} ({source}) has another value in the file: leave one out")
        seen.add(key.name)
        yield _Given(key, raw, source)


def _of_environment(
    environ: Mapping[str, str], known: Mapping[str, Key], default: str
) -> Iterator[_Given]:
    by_variable = {key.variable: key for key in known.values()}
    for variable, text in environ.items():
        if variable.startswith(ENV_PREFIX) and variable not in NOT_KEYS:
            key = _find(variable, by_variable, what="variable", place="the environment")
            source = Source(Origin.VARIABLE, variable)
            yield _Given(key, text, source, default if key.of_model else None)


def _of_flags(flags: Mapping[str, Any], known: Mapping[str, Key], default: str) -> Iterator[_Given]:
    for name, raw in flags.items():
        if raw is not None:
            key = known[name]
            source = Source(Origin.FLAG, key.flag)
            yield _Given(key, raw, source, default if key.of_model else None)


def _assemble(values: Mapping[tuple[str | None, str], Value], models: Sequence[str]) -> Config:
    of_service: dict[str, dict[str, Any]] = {}
    of_models: dict[str, dict[str, Any]] = {model: {} for model in (*models, FOLDER)}
    for value in values.values():
        found = (
            of_service.setdefault(value.key.section, {})
            if value.model is None
            else (of_models[value.model])
        )
        found[value.key.name] = value.value
    kinds = sections()
    made = {name: kinds[name](**given) for name, given in of_service.items()}
    of_folder = of_models.pop(FOLDER)
    if made["fleet"].models_dir is not None:
        made["of_folder"] = ModelConfig(**of_folder)
    return Config(models={name: ModelConfig(**given) for name, given in of_models.items()}, **made)


def _find(name: str, known: Mapping[str, Key], *, what: str, place: str) -> Key:
    if name in known:
        return known[name]
    # Compared without the prefix: sharing it would make two variables look alike.
    bare = {candidate.removeprefix(ENV_PREFIX): candidate for candidate in known}
    close = closest(name.removeprefix(ENV_PREFIX), bare)
    hint = f"did you mean {bare[close]}?" if close else "`config show` lists them all"
    raise ConfigError(f"unknown {what} {name} in {place}; {hint}")
