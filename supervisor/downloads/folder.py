"""The folder of downloaded models: what is in it, and removal.

`place` is the folder: `Config.downloads_folder`.
"""

import re
from pathlib import Path

from gpufc.errors import ConfigError
from supervisor.downloads.wanted import SUFFIX

_FIRST = re.compile(r"-00001-of-(\d{5})$")
_OTHER = re.compile(r"-(?!00001)\d{5}-of-\d{5}$")


def find(name: str, place: Path) -> Path | None:
    """The file of a downloaded model by its name, with or without `.gguf`. None without one.

    A split model is named by its first part, or without the number of the part.
    """
    if "/" in name or name.startswith("."):
        return None
    for candidate in (place / name, *(one for one in _files(place) if one.stem == name)):
        if candidate.is_file():
            return candidate
    parts = sorted(place.glob(f"{_escaped(name)}-00001-of-*{SUFFIX}"))
    return parts[0] if parts else None


def models(place: Path) -> list[Path]:
    """All downloaded models; of a split one, the first part."""
    return [path for path in _files(place) if not _OTHER.search(path.stem)]


def _files(place: Path) -> list[Path]:
    """All files of models, also of those named `.GGUF`."""
    found = sorted(place.iterdir()) if place.is_dir() else []
    return [path for path in found if path.suffix.lower() == SUFFIX]


def parts_of(path: Path) -> list[Path]:
    """All files of a model."""
    found = _FIRST.search(path.stem)
    if found is None:
        return [path]
    stem = path.stem[: found.start()]
    return sorted(path.parent.glob(f"{_escaped(stem)}-*-of-{found[1]}{SUFFIX}"))


def remove(name: str, place: Path) -> int:
    """Delete a downloaded model, and what is left of its downloads. The freed bytes.

    Nothing outside the folder can be removed. Raises `ConfigError` for an unknown name.
    """
    path = find(name, place)
    if path is not None:
        files = parts_of(path)
    else:
        whole = [place / name, place / f"{name}{SUFFIX}"] if "/" not in name else []
        files = [one for one in whole if one.with_name(f"{one.name}.part").is_file()]
    if not files:
        names = ", ".join(one.stem for one in models(place)) or "none"
        raise ConfigError(f"there is no model {name!r} in {place}; it has: {names}")
    freed = 0
    for file in files:
        for suffix in ("", ".part", ".part.json"):
            freed += _removed(file.with_name(file.name + suffix), counts=suffix != ".part.json")
    return freed


def _removed(file: Path, *, counts: bool) -> int:
    """Delete a file if it is there. Its bytes, if they count and it is no link."""
    try:
        n_bytes = 0 if file.is_symlink() or not counts else file.stat().st_size
        file.unlink()
    except FileNotFoundError:
        return 0
    return n_bytes


def _escaped(name: str) -> str:
    return re.sub(r"([\[\]*?])", r"[\1]", name)
