"""What to download: the reference that a person gives, and the files that it means. Pure.

A reference is a URL, or `OWNER/REPO` of a hub like Hugging Face, with `:` and a part of the file's
name behind it (`owner/repo:Q4_K_M`), and with `@` and a revision.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from msgspec import Struct

from gpufc.errors import ConfigError

HUB = "https://huggingface.co"
SUFFIX = ".gguf"

PREFERRED = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q5_K_M", "Q8_0")
"""The file of a repository that is taken where none is named, in this order."""

_REPO = re.compile(r"(?:hf:)?([\w.-]+/[\w.-]+)(?:@([\w./-]+?))?(?::(.+))?")
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_SHA256 = re.compile(r"(?:sha256:)?([0-9A-Fa-f]{64})")


class WantedFile(Struct, frozen=True):
    """A file to download. `name` is its base name here; None: the server has not said it."""

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None


class RepoRef(Struct, frozen=True):
    """Files of a repository of a hub."""

    repo: str
    revision: str
    part: str | None


class RepoFile(Struct, frozen=True):
    """A file as the hub lists it."""

    path: str
    size: int
    sha256: str | None


def reference(text: str) -> WantedFile | RepoRef:
    """What a person means. Raises `ConfigError`."""
    if "://" in text:
        return WantedFile(text, base_name(unquote(urlsplit(text).path)))
    found = _REPO.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text!r} is neither a URL nor OWNER/REPO[:FILE] of a hub")
    return RepoRef(found[1], found[2] or "main", found[3])


def is_of_hub(text: str, hub: str) -> bool:
    """Whether a reference leads to the hub, whose token it may get, and to no other server."""
    if "://" not in text:
        return True
    asked, ours = urlsplit(text), urlsplit(hub)
    return (asked.scheme, asked.netloc) == (ours.scheme, ours.netloc)


def base_name(path: str) -> str:
    """The safe last part of a path that a server or a person gives. Raises `ConfigError`.

    Only a GGUF file's plain name passes: no folder, no hidden file, no control character.
    """
    name = PurePosixPath(path.replace("\\", "/")).name
    if not name.lower().endswith(SUFFIX) or name.startswith(".") or not name.isprintable():
        raise ConfigError(f"{path!r} does not name a {SUFFIX} file")
    if len(name.encode()) > 200:
        raise ConfigError(f"{name[:40]!r}… is too long for a file's name")
    return name


def digest(text: str) -> str:
    """A SHA-256 as 64 small hex digits. Raises `ConfigError`."""
    found = _SHA256.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{text[:80]!r} is no SHA-256: it has 64 hex digits")
    return found[1].lower()


def listing_url(hub: str, ref: RepoRef) -> str:
    """Where the hub lists the repository's files."""
    return f"{hub.rstrip('/')}/api/models/{ref.repo}/tree/{quote(ref.revision)}?recursive=true"


def listed(document: object) -> list[RepoFile]:
    """The GGUF files of the hub's listing, without those that it describes wrongly."""
    found = []
    for row in document if isinstance(document, list) else []:
        if not isinstance(row, dict) or row.get("type") != "file":
            continue
        path, size, lfs = row.get("path"), row.get("size"), row.get("lfs") or {}
        if not isinstance(path, str) or not path.isprintable():  # it is shown on a terminal
            continue
        if isinstance(size, int) and path.lower().endswith(SUFFIX):
            oid = lfs.get("oid") if isinstance(lfs, dict) else None
            match = _SHA256.fullmatch(oid) if isinstance(oid, str) else None
            found.append(RepoFile(path, size, match[1].lower() if match else None))
    return found


def chosen(files: Sequence[RepoFile], ref: RepoRef, hub: str) -> list[WantedFile]:
    """The files that a reference means: one, or all parts of a split model. Raises
    `ConfigError`."""
    models = [one for one in files if "mmproj" not in one.path.lower()]
    if ref.part is not None:
        models = _matching(files, ref.part)
        if not models:
            names = ", ".join(_names(files)[:6]) or "none"
            raise ConfigError(f"{ref.repo} has no file like {ref.part!r}; its files: {names}")
    firsts = [one for one in models if _part_no(one.path) <= 1]
    if not firsts:
        raise ConfigError(f"{ref.repo} has no {SUFFIX} file")
    if len(firsts) > 1:
        firsts = _preferred(firsts) if ref.part is None else firsts
    if len(firsts) > 1:
        raise ConfigError(
            f"{ref.repo} has {len(firsts)} such files; name one behind a colon:"
            f" {', '.join(_names(firsts)[:6])}"
        )
    base = f"{hub.rstrip('/')}/{ref.repo}/resolve/{quote(ref.revision)}/"
    return [
        WantedFile(base + quote(one.path), base_name(one.path), one.size, one.sha256)
        for one in _all_parts(firsts[0], files)
    ]


def _matching(files: Iterable[RepoFile], part: str) -> list[RepoFile]:
    """Those whose name is the part, else has it as a word, else has it anywhere."""
    wanted = part.lower()
    word = re.compile(rf"(?<![a-z0-9]){re.escape(wanted)}(?![a-z0-9_])")
    names = {one: PurePosixPath(one.path).name.lower() for one in files}
    exact = [one for one, name in names.items() if name in {wanted, wanted + SUFFIX}]
    as_word = [one for one, name in names.items() if word.search(name)]
    return exact or as_word or [one for one, name in names.items() if wanted in name]


def _preferred(files: Sequence[RepoFile]) -> list[RepoFile]:
    for kind in PREFERRED:
        if matching := _matching(files, kind):
            return matching[:1]
    return list(files)


def _part_no(path: str) -> int:
    found = _PART.search(path)
    return int(found[1]) if found else 0


def _all_parts(first: RepoFile, files: Sequence[RepoFile]) -> list[RepoFile]:
    found = _PART.search(first.path)
    if found is None:
        return [first]
    stem, count = first.path[: found.start()], int(found[2])
    by_path = {one.path: one for one in files}
    paths = [f"{stem}-{no:05d}-of-{count:05d}{first.path[-5:]}" for no in range(1, count + 1)]
    missing = [path for path in paths if path not in by_path]
    if missing:
        raise ConfigError(f"the repository lacks a part of the model: {missing[0]}")
    return [by_path[path] for path in paths]


def _names(files: Iterable[RepoFile]) -> list[str]:
    return sorted(PurePosixPath(one.path).name for one in files)
