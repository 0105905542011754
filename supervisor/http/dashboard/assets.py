"""The page's files, as they lie in `static/`. Read once, when a browser first asks.

All addresses hold the build, a digest of all files. A file of a build never changes, so a browser
asks for it once, and a page never mixes the files of two builds.
"""

import hashlib
from functools import cache
from pathlib import Path

from msgspec import Struct

FOLDER = Path(__file__).parent / "static"
PAGE = "index.html"
PREFIX = "/dashboard"
TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


class Asset(Struct, frozen=True):
    """One file."""

    body: bytes
    content_type: str


class Assets(Struct, frozen=True):
    """All files by their paths below `static/`, and the page itself with its addresses filled
    in."""

    build: str
    page: bytes
    files: dict[str, Asset]


@cache
def assets() -> Assets:
    """The files of this version. Blocks for milliseconds at the first call."""
    files = {
        path.relative_to(FOLDER).as_posix(): Asset(path.read_bytes(), TYPES[path.suffix])
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in TYPES
    }
    digest = hashlib.sha256()
    for name, asset in files.items():
        digest.update(f"{name}\0{len(asset.body)}\0".encode())
        digest.update(asset.body)
    build = digest.hexdigest()[:12]
    page = files.pop(PAGE).body.replace(b"{base}", f"{PREFIX}/{build}".encode())
    return Assets(build, page, files)
