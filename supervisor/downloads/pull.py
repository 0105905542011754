"""From a reference to files in the folder: what `pull` does."""

import stat
from collections.abc import Callable
from pathlib import Path

import aiohttp
import msgspec
from msgspec import structs

from gpufc.errors import ConfigError
from supervisor.downloads.part_file import DownloadFailed
from supervisor.downloads.transfer import Moved, Transfer
from supervisor.downloads.wanted import (
    RepoRef,
    WantedFile,
    base_name,
    chosen,
    digest,
    listed,
    listing_url,
    reference,
)

MOST_LISTING_BYTES = 32 * 1024 * 1024

Told = Callable[[WantedFile, Moved], None]


async def files_of(
    http: aiohttp.ClientSession, text: str, hub: str, sha256: str | None, name: str | None
) -> list[WantedFile]:
    """The files that a reference means. Raises `ConfigError` or `DownloadFailed`."""
    ref = reference(text)
    files = await _of_repo(http, ref, hub) if isinstance(ref, RepoRef) else [ref]
    if (sha256 or name) and len(files) > 1:
        raise ConfigError(f"{text} has {len(files)} parts; a checksum or a name is of one file")
    if sha256:
        files = [structs.replace(files[0], sha256=digest(sha256))]
    if name:
        files = [structs.replace(files[0], name=base_name(name))]
    return files


async def pull(
    http: aiohttp.ClientSession, files: list[WantedFile], folder: Path, told: Told
) -> list[Path]:
    """Download all files. Raises `DownloadFailed`."""
    paths = []
    for file in files:

        def progress(moved: Moved, file: WantedFile = file) -> None:
            told(file, moved)

        paths.append(await Transfer(http, file, folder, progress).run())
    return paths


async def _of_repo(http: aiohttp.ClientSession, ref: RepoRef, hub: str) -> list[WantedFile]:
    url = listing_url(hub, ref)
    try:
        async with http.get(url) as response:
            if response.status != 200:
                hint = "; a token may be needed" if response.status in {401, 403, 404} else ""
                raise DownloadFailed(f"{url}: {response.status} {response.reason}{hint}")
            body = await _whole(response)
    except (aiohttp.ClientError, TimeoutError) as err:
        raise DownloadFailed(f"{hub} cannot be reached: {err or type(err).__name__}") from err
    try:
        return chosen(listed(msgspec.json.decode(body)), ref, hub)
    except msgspec.DecodeError as err:
        raise DownloadFailed(f"{url} answers with something else than a list of files") from err


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MOST_LISTING_BYTES:
            raise DownloadFailed(f"{response.url} is larger than {MOST_LISTING_BYTES} bytes")
    return bytes(body)


def private_token(path: Path) -> str:
    """The token in a file that only its owner can read. Raises `ConfigError`."""
    try:
        with path.expanduser().open(encoding="utf-8-sig") as file:
            mode = stat.S_IMODE(path.expanduser().stat().st_mode)
            text = file.read(4096).strip()
    except OSError as err:
        raise ConfigError(f"token file {path} cannot be read: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise ConfigError(f"token file {path} is no text: {err}") from err
    if mode & 0o077:
        raise ConfigError(f"token file {path} can be read by others (mode {mode:o}): chmod 600 it")
    return text
