"""Makes a key's value of a raw one, or says in a sentence what the key takes."""

import os
import tomllib
from typing import Any

import msgspec
from msgspec import inspect

from gpufc.errors import ConfigError
from gpufc.settings.keys import Key, closest
from gpufc.settings.values import HIDDEN, Origin, Source, Value


def checked(key: Key, raw: Any, source: Source, model: str | None) -> Value:
    """The value of `model`'s key, of the service's where that is None. Raises `ConfigError`."""
    kind = _kind(key.type)
    for text in raw if isinstance(raw, list | tuple) else (raw,):
        if isinstance(text, str):
            require_utf8(text, f"{key.name} ({source})", HIDDEN if key.is_secret else "")
    if isinstance(raw, bool) and isinstance(kind, inspect.EnumType):
        raw = str(raw).lower()  # TOML's true and false are enum words here
    if isinstance(raw, str) and isinstance(kind, inspect.StructType):
        raw = _table_in(raw)
    if isinstance(raw, str) and isinstance(kind, inspect.VarTupleType):
        raw = [part.strip() for part in raw.split(",")] if raw else []
    try:
        value = msgspec.convert(raw, key.type, strict=source.origin is Origin.FILE)
    except msgspec.ValidationError as err:
        reason = _wrong_entry(kind, raw) or wanted(key) or _lowered(err)
        shown = HIDDEN if key.is_secret or _has_tables(raw) else repr(raw)
        raise ConfigError(f"bad value {shown} for {key.name} ({source}): {reason}") from None
    if value == "" and key.default is None:
        raise ConfigError(f"{key.name} ({source}) is empty; leave it out to have the default")
    if isinstance(value, str) and key.is_path:
        value = _expanded(value)
    return Value(key, value, source, model)


def require_utf8(text: str, what: str, shown: str = "") -> None:
    """Raises `ConfigError` for a path, a name or another text that is not valid UTF-8, with
    `shown` in its place if it must not be seen.

    Python keeps the bytes of such an argument, but neither JSON nor a worker's messages can.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        seen = shown or ascii(text)
        raise ConfigError(
            f"{what} is {seen}, which is not valid UTF-8 here: rename it, or set a UTF-8 locale"
            " such as LC_ALL=C.UTF-8"
        ) from None


def _has_tables(raw: Any) -> bool:
    """Whether it is a list with tables, such as plugins', whose options may be secrets."""
    return isinstance(raw, list) and any(isinstance(one, dict) for one in raw)


def _table_in(text: str) -> Any:
    """A table as TOML writes it in one line; the text itself if it is none."""
    try:
        return tomllib.loads(f"table = {text}")["table"]
    except tomllib.TOMLDecodeError:
        return text


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


def wanted(key: Key) -> str:
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
