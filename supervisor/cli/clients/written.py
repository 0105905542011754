"""Writing a client's configuration into its files, with a backup of each."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpufc.errors import ConfigError
from supervisor.cli.clients.form import JsonFile, TextFile

BACKUP = ".before-gpufc"
"""The ending of a backup's name. The first backup is kept: it is the file without gpufc."""


def write(home: Path, configuration: JsonFile | TextFile) -> tuple[Path, Path | None]:
    """Write a configuration. Returns the file, and its backup if there was a file before.

    Raises `ConfigError` for a JSON file that cannot be read as plain JSON, which is left alone.
    """
    path = home / configuration.path
    before = path.read_text() if path.exists() else None
    match configuration:
        case TextFile(_, text):
            after = text
        case JsonFile(_, members):
            after = json.dumps(_merged(_object(path, before), members), indent=2) + "\n"
    if after == before:
        return path, None
    path.parent.mkdir(parents=True, exist_ok=True)
    backup = None
    if before is not None:
        backup = path.with_name(path.name + BACKUP)
        if not backup.exists():
            _replace(backup, before, path.stat().st_mode & 0o777)
    # it holds a key, which is nothing for everybody
    _replace(path, after, 0o600 if before is None else path.stat().st_mode & 0o770)
    return path, backup


def _object(path: Path, text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text) if text and text.strip() else {}
    except ValueError as err:
        raise ConfigError(
            f"{path} is not plain JSON ({err}); without --write the lines to add are shown"
        ) from err
    if not isinstance(found, dict):
        raise ConfigError(f"{path} does not hold a JSON object")
    return found


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`old` with the members of `new`, objects member by member."""
    merged = dict(old)
    for name, value in new.items():
        before = merged.get(name)
        both = isinstance(before, dict) and isinstance(value, Mapping)
        merged[name] = _merged(before or {}, value) if both else value
    return merged


def _replace(path: Path, text: str, mode: int) -> None:
    """Write a file whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
