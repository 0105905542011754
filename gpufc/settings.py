"""Where each configuration value comes from: flag beats variable beats file beats default.

`resolve` reads the one file that it is given: the caller passes the environment and the flags. A
`~` at the beginning of a path is the home folder, wherever the path comes from. Each mistake is a
`ConfigError` of one line: the key, its source and what to do.

A model's keys can stand in three places of the file. The more specific place wins: `[models.NAME]`,
then a flat key, then `[model]`, which holds defaults for all models. Flat keys, variables and flags
mean the default model: `[models.default]`, else the first table, else the only model. Without any
table they mean the models of `models_dir` too.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import Struct, inspect

from gpufc.config import DEFAULT_MODEL, Config, ModelConfig, PluginConfig
from gpufc.config.marks import Reload
from gpufc.errors import ConfigError

ENV_PREFIX = "GPUFC_"

SHARED, TABLES = "model", "models"
"""The file's sections of models: defaults for all of them, and one table for each."""

FOLDER = ""
"""Stands for the models of `models_dir`, where models have names. No table has this name."""

OWN = frozenset({"model_path", "model", "aliases", "draft_model_path", "adapters", "pinned"})
"""Keys that cannot be the same for all models of a folder."""

NAME = "model"
"""The key of a model's served name. A table has its own name instead."""

SIMILAR = 0.75
"""Least likeness (difflib's ratio) for a "did you mean": `prot` is this like `port`."""

NOT_KEYS = frozenset({"GPUFC_CONFIG", "GPUFC_API_KEY"})
"""Variables with the prefix that are read elsewhere: the file's place, and the client's key."""


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
    def variable(self) -> str:
        """The environment variable of this key."""
        return ENV_PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """The command-line flag, whether or not it exists (`has_flag`)."""
        return "--" + self.name.replace("_", "-")


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


class _Given(Struct, frozen=True):
    """A raw value for `model`, or for all models if that is None."""

    key: Key
    raw: Any
    source: Source
    model: str | None = None


def keys() -> dict[str, Key]:
    """All keys by name, in order of declaration."""
    return {key.name: key for key in _declared()}


def _declared() -> Iterator[Key]:
    for section, kind in _sections().items():
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


def _sections() -> dict[str, Any]:
    """Each field of `Config` with its struct; for the models, that of one model."""
    fields = msgspec.structs.fields(Config)
    kinds = {field.name: (get_args(field.type) or (field.type,))[-1] for field in fields}
    del kinds["of_folder"]  # it has the keys of `models`
    return kinds


def resolve(*, flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None) -> Settings:
    """The configuration in force.

    `flags` maps the names of keys to the flags' values; None counts as not given.
    `file` is a TOML file that must exist, or None. Raises `ConfigError`.
    """
    known = keys()
    document = _read_file(file) if file is not None else {}
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
            values[model, given.key.name] = _checked(given, model)
    shown = tuple(value for value in values.values() if value.model != FOLDER)
    return Settings(_assemble(values, models), shown)


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
        if name != TABLES and not (name == SHARED and isinstance(raw, dict)):
            key = _find(name, known, what="key", place=str(source))
            yield _Given(key, raw, source, default if key.of_model else None)
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
    sections: dict[str, dict[str, Any]] = {}
    of_models: dict[str, dict[str, Any]] = {model: {} for model in (*models, FOLDER)}
    for value in values.values():
        found = (
            sections.setdefault(value.key.section, {})
            if value.model is None
            else (of_models[value.model])
        )
        found[value.key.name] = value.value
    kinds = _sections()
    made = {name: kinds[name](**given) for name, given in sections.items()}
    of_folder = of_models.pop(FOLDER)
    if made["fleet"].models_dir is not None:
        made["of_folder"] = ModelConfig(**of_folder)
    return Config(models={name: ModelConfig(**given) for name, given in of_models.items()}, **made)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors write byte order marks
    except FileNotFoundError:
        raise ConfigError(f"configuration file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"configuration file {path} cannot be read: {err}") from err
    except tomllib.TOMLDecodeError as err:
        raise ConfigError(f"configuration file {path} is not valid TOML: {err}") from err
    except RecursionError:
        raise ConfigError(f"configuration file {path} is nested too deeply") from None


def _find(name: str, known: Mapping[str, Key], *, what: str, place: str) -> Key:
    if name in known:
        return known[name]
    # Compared without the prefix: sharing it would make two variables look alike.
    bare = {candidate.removeprefix(ENV_PREFIX): candidate for candidate in known}
    close = closest(name.removeprefix(ENV_PREFIX), bare)
    hint = f"did you mean {bare[close]}?" if close else "`config show` lists them all"
    raise ConfigError(f"unknown {what} {name} in {place}; {hint}")


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that differs from `word` in a letter or two; None without one."""
    found = difflib.get_close_matches(word, candidates, n=1, cutoff=SIMILAR)
    return found[0] if found else None


def _has_tables(raw: Any) -> bool:
    """Whether it is a list with tables, such as plugins', whose options may be secrets."""
    return isinstance(raw, list) and any(isinstance(one, dict) for one in raw)


def _checked(given: _Given, model: str | None) -> Value:
    key, raw, source = given.key, given.raw, given.source
    kind = _kind(key.type)
    if isinstance(raw, bool) and isinstance(kind, inspect.EnumType):
        raw = str(raw).lower()  # TOML's true and false are enum words here
    if isinstance(raw, str) and isinstance(kind, inspect.StructType):
        raw = _table_in(raw)
    if isinstance(raw, str) and isinstance(kind, inspect.VarTupleType):
        raw = [part.strip() for part in raw.split(",")] if raw else []
    try:
        value = msgspec.convert(raw, key.type, strict=source.origin is Origin.FILE)
    except msgspec.ValidationError as err:
        reason = _wrong_entry(kind, raw) or _wanted(key) or _lowered(err)
        shown = HIDDEN if key.is_secret or _has_tables(raw) else repr(raw)
        raise ConfigError(f"bad value {shown} for {key.name} ({source}): {reason}") from None
    if value == "" and key.default is None:
        raise ConfigError(f"{key.name} ({source}) is empty; leave it out to have the default")
    if isinstance(value, str):
        require_utf8(value, f"{key.name} ({source})")
        if key.is_path:
            value = _expanded(value)
    return Value(key, value, source, model)


def _table_in(text: str) -> Any:
    """A table as TOML writes it in one line; the text itself if it is none."""
    try:
        return tomllib.loads(f"table = {text}")["table"]
    except tomllib.TOMLDecodeError:
        return text


def require_utf8(text: str, what: str) -> None:
    """Raises `ConfigError` for a path or a name that is not valid UTF-8.

    Python keeps the bytes of such an argument, but neither JSON nor a worker's messages can.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{what} is {text!a}, which is not valid UTF-8 here: rename it, or set a UTF-8"
            " locale such as LC_ALL=C.UTF-8"
        ) from None


def _expanded(paths: str) -> str:
    """The paths with `~` and `~user` at their beginnings expanded."""
    return ":".join(os.path.expanduser(path) for path in paths.split(":"))


def _wrong_entry(kind: inspect.Type, raw: Any) -> str:
    """A sentence on the first entry of a table that does not fit; empty where it is no table."""
    if not isinstance(kind, inspect.StructType) or not isinstance(raw, dict):
        return ""
    entries = {field.name: field for field in msgspec.structs.fields(kind.cls)}
    for name, value in raw.items():
        if name not in entries:
            close = closest(name, entries)
            return f"it has no {name}" + (f"; did you mean {close}?" if close else "")
        try:
            msgspec.convert({name: value}, kind.cls)
        except msgspec.ValidationError as err:
            return f"{name}: {_wanted_of(_kind(entries[name].type), '') or _lowered(err)}"
    return ""


def _lowered(err: msgspec.ValidationError) -> str:
    return str(err)[:1].lower() + str(err)[1:]


def _wanted(key: Key) -> str:
    """A sentence on the values that this key takes; empty for a type that no key has yet."""
    return _wanted_of(_kind(key.type), key.description)


def _wanted_of(kind: inspect.Type, description: str) -> str:
    match kind:
        case inspect.EnumType(cls=choices):
            *most, last = [str(member.value) for member in choices]
            return f"it must be {', '.join(most)} or {last}"
        case inspect.BoolType():
            return "it must be true or false"
        case inspect.IntType():
            return f"it must be a whole number{_bounds(kind)}"
        case inspect.FloatType():
            return f"it must be a number{_bounds(kind)}"
        case inspect.StrType(pattern=str()):
            return f"it must be as in: {description}"
        case inspect.StrType(max_length=most_letters, min_length=least):
            limit = f" of at most {most_letters:,} letters" if most_letters else ""
            return f"it must be text{limit}{' and not empty' if least else ''}"
        case inspect.VarTupleType():
            return "it must be a list of texts, none of them empty"
        case inspect.StructType():
            return f"it must be a {description}"
        case _:
            return ""


def _kind(annotation: Any) -> inspect.Type:
    """The type of the key's values apart from None."""
    kind = inspect.type_info(annotation)
    while isinstance(kind, inspect.Metadata | inspect.UnionType):
        if isinstance(kind, inspect.Metadata):
            kind = kind.type
        else:
            kind = next(one for one in kind.types if not isinstance(one, inspect.NoneType))
    return kind


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    least, most = kind.ge, kind.le
    if least is not None and most is not None:
        return f" from {_number(least)} to {_number(most)}"
    words = {"of at least": least, "over": kind.gt, "below": kind.lt, "at most": most}
    bounds = [f"{word} {_number(bound)}" for word, bound in words.items() if bound is not None]
    return f" {' and '.join(bounds)}" if bounds else ""


def _number(bound: float) -> str:
    """A bound as it is typed: without separators."""
    return str(int(bound)) if bound == int(bound) else str(bound)
