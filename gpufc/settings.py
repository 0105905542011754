"""Where each configuration value comes from: flag beats variable beats file beats default.

Pure but for reading the one file that it is given: the environment and the flags are passed in.
Every mistake is a `ConfigError` of one line that names the key, its source and what to do.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from gpufc.config import Config
from gpufc.errors import ConfigError

ENV_PREFIX = "GPUFC_"

NOT_KEYS = frozenset({"GPUFC_CONFIG", "GPUFC_API_KEY"})
"""Variables with the prefix that are read elsewhere: the file's place, and the client's key."""


class Key(Struct, frozen=True):
    """One configuration key, as declared in `gpufc/config.py`."""

    name: str
    section: str
    type: Any
    default: Any
    description: str
    has_flag: bool

    @property
    def variable(self) -> str:
        """The environment variable of this key."""
        return ENV_PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        """The command-line flag, whether or not it exists (`has_flag`)."""
        return "--" + self.name.replace("_", "-")


class Value(Struct, frozen=True):
    """An effective value with the place that it came from, such as `variable GPUFC_PORT`."""

    key: Key
    value: Any
    source: str


class Settings(Struct, frozen=True):
    """The configuration in force and the origin of each value, in order of declaration."""

    config: Config
    values: tuple[Value, ...]


def keys() -> dict[str, Key]:
    """All keys by name, in order of declaration."""
    return {key.name: key for key in _declared()}


def _declared() -> Iterator[Key]:
    for section in msgspec.structs.fields(Config):
        for entry in msgspec.structs.fields(section.type):
            meta = entry.type.__metadata__[-1]
            yield Key(
                name=entry.name,
                section=section.name,
                type=entry.type,
                default=entry.default,
                description=meta.description,
                has_flag=bool(meta.extra and meta.extra.get("flag")),
            )


def resolve(*, flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None) -> Settings:
    """The configuration in force.

    `flags` holds the flags that were given (a key's name → its value); None counts as not given.
    `file` is a TOML file that must exist, or None. Raises `ConfigError`.
    """
    known = keys()
    values = {name: Value(key, key.default, "default") for name, key in known.items()}
    if file is not None:
        for name, raw in _read_file(file).items():
            key = _find(name, known, what="key", place=f"file {file}")
            values[name] = _checked(key, raw, f"file {file}", strict=True)
    by_variable = {key.variable: key for key in known.values()}
    for variable, text in environ.items():
        if variable.startswith(ENV_PREFIX) and variable not in NOT_KEYS:
            key = _find(variable, by_variable, what="variable", place="the environment")
            values[key.name] = _checked(key, text, f"variable {variable}", strict=False)
    for name, raw in flags.items():
        if raw is not None:
            values[name] = _checked(known[name], raw, f"flag {known[name].flag}", strict=False)
    return Settings(_assemble(values), tuple(values.values()))


def _assemble(values: Mapping[str, Value]) -> Config:
    sections: dict[str, dict[str, Any]] = {}
    for value in values.values():
        sections.setdefault(value.key.section, {})[value.key.name] = value.value
    fields = {field.name: field.type for field in msgspec.structs.fields(Config)}
    return Config(**{name: fields[name](**given) for name, given in sections.items()})


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"configuration file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"configuration file {path} cannot be read: {err}") from err
    except tomllib.TOMLDecodeError as err:
        raise ConfigError(f"configuration file {path} is not valid TOML: {err}") from err


def _find(name: str, known: Mapping[str, Key], *, what: str, place: str) -> Key:
    if name in known:
        return known[name]
    # Without the prefix: two variables would look alike for sharing it.
    bare = {candidate.removeprefix(ENV_PREFIX): candidate for candidate in known}
    close = difflib.get_close_matches(name.removeprefix(ENV_PREFIX), bare, n=1)
    hint = f"did you mean {bare[close[0]]}?" if close else "`config show` lists them all"
    raise ConfigError(f"unknown {what} {name} in {place}; {hint}")


def _checked(key: Key, raw: Any, source: str, *, strict: bool) -> Value:
    try:
        value = msgspec.convert(raw, key.type, strict=strict)
    except msgspec.ValidationError as err:
        reason = str(err)[:1].lower() + str(err)[1:]
        raise ConfigError(f"bad value {raw!r} for {key.name} ({source}): {reason}") from None
    return Value(key, value, source)
