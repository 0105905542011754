"""Command-line options made from the configuration keys, and `Settings` made from them."""

import os
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from gpufc.settings import Key, Settings
    from supervisor.runtime_dir import RuntimeDir

F = TypeVar("F", bound=Callable[..., Any])

CONFIG_VARIABLE = "GPUFC_CONFIG"

_FILES = frozenset(
    {"model_path", "keys_file", "tls_cert", "tls_key", "client_id_file", "cert_chain_path"}
)
_FOLDERS = frozenset({"models_dir", "runtime_dir"})


def setting_options(names: Iterable[str] | None = None) -> Callable[[F], F]:
    """Options for the keys of these names, or for every key that has a flag.

    Values arrive as text (None when not given) under the key's name; `resolve` checks them.
    """
    from gpufc.settings import keys

    wanted = None if names is None else set(names)
    chosen = [k for k in keys().values() if k.has_flag and (wanted is None or k.name in wanted)]

    def decorate(function: F) -> F:
        for key in reversed(chosen):
            function = _option(key)(function)
        return function

    return decorate


def _option(key: "Key") -> Callable[[F], F]:
    flags = (key.flag, key.alias) if key.alias else (key.flag,)
    if key.type.__origin__ is bool:
        return click.option(
            *flags, key.name, is_flag=True, flag_value="true", default=None, help=describe(key)
        )
    return click.option(
        *flags, key.name, type=_type(key), metavar=_metavar(key), help=describe(key)
    )


def config_option(function: F) -> F:
    """`--config`: the TOML file."""
    return click.option(
        "--config",
        "config_file",
        type=click.Path(),
        metavar="FILE",
        help=f"TOML file with any of the keys [default: none] [env: {CONFIG_VARIABLE}]",
    )(function)


def describe(key: "Key") -> str:
    """A key's help: what it is, its default and its variable."""
    default = "" if "[default:" in key.description else f" [default: {show(key.default)}]"
    return f"{key.description}{default} [env: {key.variable}]"


def show(value: Any) -> str:
    """A value as in the TOML file; `(not set)` for None."""
    if value is None:
        return "(not set)"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def resolve(flags: Mapping[str, Any], config_file: str | None = None) -> "Settings":
    """The settings in force for this command line and environment. Raises `ConfigError`."""
    from gpufc import settings

    file = config_file or os.environ.get(CONFIG_VARIABLE)
    return settings.resolve(
        flags=flags, environ=os.environ, file=Path(file).expanduser() if file else None
    )


def runtime_dir(given: str | None) -> "RuntimeDir":
    """The runtime folder that a control command refers to."""
    from supervisor.runtime_dir import RuntimeDir

    return RuntimeDir.find(resolve({"runtime_dir": given}).config.server.runtime_dir)


def _type(key: "Key") -> click.ParamType[Any] | type[str]:
    """An option's type. It yields text, which `settings` checks, and lets the shell complete it."""
    kind = key.type.__origin__
    if words := _words(kind):
        return click.Choice(words)
    if key.name in _FILES:
        return click.Path()
    if key.name in _FOLDERS:
        return click.Path(file_okay=False)
    return str


def _metavar(key: "Key") -> str | None:
    kind = key.type.__origin__
    if key.name in _FILES:
        return "FILE"
    if key.name in _FOLDERS:
        return "FOLDER"
    if words := _words(kind):
        return "|".join(words)
    if kind in (int, float):
        return "N"
    return "ADDRESS" if key.name == "host" else "NAME"


def _words(kind: Any) -> list[str]:
    """The values of a `StrEnum`; none for any other type."""
    if not (isinstance(kind, type) and issubclass(kind, StrEnum)):
        return []
    return [member.value for member in kind]
