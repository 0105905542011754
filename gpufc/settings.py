"""Where each configuration value comes from: flag beats variable beats file beats default.

Pure but for reading the one file that it is given: the environment and the flags are passed in.
Every mistake is a `ConfigError` of one line that names the key, its source and what to do.
"""

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, inspect

from gpufc.config import Config
from gpufc.errors import ConfigError

ENV_PREFIX = "GPUFC_"

SIMILAR = 0.75
"""Least likeness (difflib's ratio) of what "did you mean" names: `prot` is that like `port`."""

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
    close = closest(name.removeprefix(ENV_PREFIX), bare)
    hint = f"did you mean {bare[close]}?" if close else "`config show` lists them all"
    raise ConfigError(f"unknown {what} {name} in {place}; {hint}")


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """What was probably meant: one that differs in a letter or two, else None."""
    found = difflib.get_close_matches(word, candidates, n=1, cutoff=SIMILAR)
    return found[0] if found else None


def _checked(key: Key, raw: Any, source: str, *, strict: bool) -> Value:
    kind = _kind(key.type)
    if isinstance(raw, bool) and isinstance(kind, inspect.EnumType):
        raw = str(raw).lower()  # TOML's true and false are words among others here
    try:
        value = msgspec.convert(raw, key.type, strict=strict)
    except msgspec.ValidationError as err:
        reason = _wanted(key) or str(err)[:1].lower() + str(err)[1:]
        raise ConfigError(f"bad value {raw!r} for {key.name} ({source}): {reason}") from None
    if value == "" and key.default is None:
        raise ConfigError(f"{key.name} ({source}) is empty; leave it out to have the default")
    return Value(key, value, source)


def _wanted(key: Key) -> str:
    """What a value of this key must be, as words; empty for a kind that no key has yet."""
    match _kind(key.type):
        case inspect.EnumType(cls=choices):
            *most, last = [str(member.value) for member in choices]
            return f"it must be {', '.join(most)} or {last}"
        case inspect.BoolType():
            return "it must be true or false"
        case inspect.IntType() as kind:
            return f"it must be a whole number{_bounds(kind)}"
        case inspect.FloatType() as kind:
            return f"it must be a number{_bounds(kind)}"
        case inspect.StrType(pattern=str()):
            return f"it must be as in: {key.description}"
        case inspect.StrType(max_length=most_letters, min_length=least):
            limit = f" of at most {most_letters:,} letters" if most_letters else ""
            return f"it must be text{limit}{' and not empty' if least else ''}"
        case _:
            return ""


def _kind(annotation: Any) -> inspect.Type:
    """The type of a value that was given, which None is not."""
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
    told = [f"{word} {_number(bound)}" for word, bound in words.items() if bound is not None]
    return f" {' and '.join(told)}" if told else ""


def _number(bound: float) -> str:
    """As it is typed, without separators."""
    return str(int(bound)) if bound == int(bound) else str(bound)
