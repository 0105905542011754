"""Checks that a path is a GGUF file, by its first bytes, and names the usual mix-ups. Finds the
file of a chat template.

The worker reads the rest: models are untrusted, and the front does not parse them.
"""

import os
import stat
from pathlib import Path

from gpufc.errors import ConfigError
from gpufc.settings import closest, require_utf8
from supervisor import program

MAGIC = b"GGUF"
NEWEST_VERSION = 3
PLAUSIBLE_VERSION = 99
"""A version above this means a damaged file rather than a new format; the worker reports it."""
_LEAST_BYTES = 24
_GLANCE_BYTES = 64
_PARTIAL_SUFFIXES = (".part", ".partial", ".crdownload", ".incomplete", ".download", ".aria2")
_OTHER_KINDS = {
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_CONVERT = "llama.cpp reads GGUF only: look for a GGUF edition of the model, or convert it"


def check(given: str, source: str) -> Path:
    """The absolute path of a readable file that begins like GGUF.

    Raises `ConfigError` with one line: the fault, the source of the path, the remedy.
    """
    path = Path(given).expanduser().absolute()
    require_utf8(str(path), f"model path ({source})")
    try:
        if path.is_dir():
            raise ConfigError(f"model path {path} ({source}) is a folder; {_in_folder(path)}")
        start, size = _glance(path, source)
    except FileNotFoundError:
        raise ConfigError(f"model file {path} ({source}) does not exist{_near(path)}") from None
    except NotADirectoryError:
        raise ConfigError(f"model file {path} ({source}) does not exist") from None
    except PermissionError:
        raise ConfigError(
            f"model file {path} ({source}) cannot be read: permission denied; see `ls -l` of it"
        ) from None
    except OSError as err:
        raise ConfigError(f"model file {path} ({source}) cannot be read: {err.strerror}") from err
    fault = fault_in(start, size, path.suffix)
    if fault:
        raise ConfigError(f"model file {path} ({source}) {fault}")
    return path


def _glance(path: Path, source: str) -> tuple[bytes, int]:
    """The first bytes of a file and its size. Raises `OSError`, and `ConfigError` for a FIFO, a
    device or a socket, which is not opened: a read might wait for ever."""
    kind = _OTHER_KINDS.get(stat.S_IFMT(path.stat().st_mode))
    if kind is not None:
        raise ConfigError(f"model path {path} ({source}) is {kind}; name a GGUF file")
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        return file.read(_GLANCE_BYTES), os.fstat(file.fileno()).st_size


def located(given: str, downloads: Path) -> str:
    """The path of a downloaded model that is given by its name; any other path as it is."""
    if "/" in given or Path(given).exists():
        return given
    from supervisor.downloads.folder import find

    found = find(given, downloads)
    return given if found is None else str(found)


def template(given: str, source: str) -> str:
    """A configured chat template: the absolute path of its file, or its name as it is.

    Raises `ConfigError` for a path without a readable file. Names have no `/`.
    """
    path = Path(given).expanduser().absolute()
    if not path.is_file():
        if "/" in given:
            raise ConfigError(f"chat template {path} ({source}) is not a file")
        return given
    require_utf8(str(path), f"chat template ({source})")
    if not os.access(path, os.R_OK):
        raise ConfigError(f"chat template {path} ({source}) cannot be read: permission denied")
    return str(path)


def fault_in(start: bytes, size: int, suffix: str = "") -> str | None:
    """The fault of a file with this beginning, as the end of a sentence; None if it is fine."""
    if not size:
        return "is empty; download it again"
    if suffix in _PARTIAL_SUFFIXES:
        return f"is half a download ({suffix}); wait for it or download it again"
    if start.startswith(MAGIC):
        return _fault_in_gguf(start, size)
    return _other_format(start)


def _fault_in_gguf(start: bytes, size: int) -> str | None:
    if size < _LEAST_BYTES:
        return f"is cut off after {size} bytes; download it again"
    version = start[4:8]
    if version[:3] == b"\0\0\0":
        return "is a big-endian GGUF file; get the little-endian edition of the model"
    number = int.from_bytes(version, "little")
    if number < 2:
        return "is in GGUF version 1, which llama.cpp no longer reads; get a newer edition"
    if NEWEST_VERSION < number <= PLAUSIBLE_VERSION:
        return (
            f"is in GGUF version {number}, newer than this llama.cpp knows; "
            f"`{program.pip('install --upgrade llama-cpp-python')}` updates it"
        )
    return None


def _other_format(start: bytes) -> str:
    text = start.lstrip().lower()
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 30:
        return f"is a safetensors file; {_CONVERT} (convert_hf_to_gguf.py of llama.cpp)"
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")):
        return f"is a PyTorch or zip file; {_CONVERT} (convert_hf_to_gguf.py of llama.cpp)"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the model; run `git lfs pull` where it came from"
    if text.startswith((b"<!doctype", b"<html")):
        return "is a web page; use the file's download link rather than the page's address"
    if text.startswith((b"{", b"[")):
        return "is JSON, perhaps the answer of a failed download; look into it"
    if start.startswith((b"lmgg", b"fmgg", b"tjgg", b"algg")):
        return "is in a format that came before GGUF; get a newer edition of the model"
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd")):
        return "is compressed; unpack it first"
    if not start.strip(b"\0"):
        return "begins with zeros: the download did not get there; download it again"
    return f"is not a GGUF file (it begins with {start[:4]!r}); {_CONVERT}"


def _in_folder(folder: Path) -> str:
    try:
        found = _models_in(folder)
    except OSError:
        found = []
    if not found:
        return "name a GGUF file"
    return f"name one of its files: {_some(found)}"


def _models_in(folder: Path) -> list[str]:
    """The names of a folder's GGUF files. Raises `OSError`."""
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".gguf")


def _some(names: list[str]) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(sorted(names)[:3])}{more}"


def _near(path: Path) -> str:
    """A hint at the path that was probably meant."""
    folder = path.parent
    if not folder.is_dir():
        while not folder.is_dir():
            folder = folder.parent
        return f" (nor does its folder; the closest folder that exists is {folder})"
    try:
        names = _models_in(folder)
    except OSError:
        return ""
    close = closest(path.name, names)
    if close:
        return f"; did you mean {folder / close}?"
    return f"; its folder holds {_some(names)}" if names else ""
