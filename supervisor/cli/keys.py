"""`keys add|list|revoke`: the access keys of a file. Works without a running front."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from supervisor.cli.options import config_option, resolve, setting_options

if TYPE_CHECKING:
    from supervisor.access.keys import Key

DAY_S = 86_400

SCOPES = ("generate", "read", "admin")


@click.group("keys")
def command() -> None:
    """Make, list and revoke access keys.

    With `start --keys-file`, every request but /livez and /readyz needs a key. The file holds the
    keys' SHA-256 only. A running front reads it again when it changes.
    """


@command.command("add")
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, type=click.Choice(SCOPES),
    help="generate: the models' routes; read: figures; admin: everything; may be repeated"
    " [default: generate]",
)  # fmt: skip
@click.option(
    "--model", "models", multiple=True, metavar="NAME",
    help="served model that it may use, `*` for any text; may be repeated [default: all]",
)  # fmt: skip
@click.option("--expires", metavar="DAYS", type=click.IntRange(1, 36_500), help="[default: never]")
@click.option("--requests-per-minute", metavar="N", type=int, help="[default: no limit]")
@click.option("--tokens-per-minute", metavar="N", type=int, help="[default: no limit]")
@click.option("--concurrent", metavar="N", type=int, help="sequences at once [default: no limit]")
@click.option(
    "--cache-group", metavar="NAME",
    help="keys of a group reuse each other's cached prefixes [default: none]",
)  # fmt: skip
@setting_options(["keys_file"])
@config_option
def add(
    name: str,
    scopes: tuple[str, ...],
    models: tuple[str, ...],
    expires: int | None,
    keys_file: str | None,
    config_file: str | None,
    **limits: Any,
) -> None:
    """Make a key and print it, once, on the last line.

    Without --keys-file, the file is the configured one, else ~/.config/gpufc/keys.json.
    """
    from supervisor.access import store
    from supervisor.access.keys import digest, new_text

    text, now, path = new_text(), int(time.time()), _path(keys_file, config_file)
    key = _checked(
        name=name,
        sha256=digest(text),
        scopes=list(dict.fromkeys(scopes or SCOPES[:1])),
        created=now,
        expires=None if expires is None else now + expires * DAY_S,
        models=models,
        **limits,
    )
    store.change(path, lambda known: known.adding(key))
    click.echo(f"Added to {path}, which `start --keys-file {path}` uses.", err=True)
    click.echo("This is the key. It is not shown again.", err=True)
    click.echo(text)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@setting_options(["keys_file"])
@config_option
def list_keys(as_json: bool, keys_file: str | None, config_file: str | None) -> None:
    """List the keys, without their texts."""
    import msgspec

    from supervisor.access import store
    from supervisor.cli.terminal import columns, table

    found = store.load(_path(keys_file, config_file)).keys
    if as_json:
        rows: list[dict[str, Any]] = [msgspec.to_builtins(key) for key in found]
        for row in rows:
            row.pop("sha256")
        click.echo(json.dumps(rows, indent=2))
    elif found:
        click.echo("\n".join(table([_row(key) for key in found], columns(), ("limits", "models"))))
    else:
        click.echo("there are no keys")


@command.command("revoke")
@click.argument("name")
@setting_options(["keys_file"])
@config_option
def revoke(name: str, keys_file: str | None, config_file: str | None) -> None:
    """End a key. A running front refuses it within a second; its running requests go on."""
    from supervisor.access import store

    path = _path(keys_file, config_file)
    store.load(path)  # a missing file is a mistake here
    store.change(path, lambda known: known.revoking(name))
    click.echo(f"revoked {name}")


def _path(keys_file: str | None, config_file: str | None) -> Path:
    """The file: as named, as configured, or in the user's own folder."""
    import os

    configured = resolve({"keys_file": keys_file}, config_file).config.access.keys_file
    if configured is not None:
        return Path(configured)
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "gpufc" / "keys.json"


def _checked(**fields: Any) -> "Key":
    """A key of these fields. Raises `ConfigError`."""
    import msgspec

    from gpufc.errors import ConfigError
    from supervisor.access.keys import Key

    try:
        return msgspec.convert(fields, Key)
    except msgspec.ValidationError as err:
        if err.args[0].endswith("`$.name`"):
            raise ConfigError(
                f"the name {fields['name']!r} is no key's: up to 64 letters, digits and any of"
                " `_.@-`, a letter or a digit first"
            ) from None
        reason, _, place = str(err).partition(" - at `$.")
        option = "--" + place.rstrip("`").partition("[")[0].replace("_", "-").removesuffix("s")
        raise ConfigError(f"{option}: {reason[:1].lower()}{reason[1:]}") from None


def _row(key: "Key") -> dict[str, str]:
    limits = {
        "requests/min": key.requests_per_minute,
        "tokens/min": key.tokens_per_minute,
        "at once": key.concurrent,
    }
    given = ", ".join(f"{number} {unit}" for unit, number in limits.items() if number is not None)
    return {
        "name": key.name,
        "scopes": ", ".join(key.scopes),
        "made": _day(key.created),
        "expires": "expired" if key.has_expired(time.time()) else _day(key.expires),
        "models": ", ".join(key.models) or "all",
        "limits": given or "-",
    }


def _day(at: int | None) -> str:
    return "never" if at is None else time.strftime("%Y-%m-%d", time.localtime(at))
