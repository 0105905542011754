"""The transfer of one file over HTTP: in pieces, and again after a cut. See also `part_file`."""

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from msgspec import Struct

from supervisor.downloads.part_file import PIECE_BYTES, DownloadFailed, PartFile
from supervisor.downloads.wanted import WantedFile

CONNECT_S, SILENCE_S = 20.0, 30.0
"""A server that sends nothing for this long is gone."""

TRIES = 8
"""In a row without a new byte, unless the caller names another number."""

LONGEST_WAIT_S = 30.0

OK, PARTIAL, UNSATISFIABLE = 200, 206, 416
GONE_FOR_GOOD = frozenset({400, 401, 403, 404, 410, 451})


class Moved(Struct, frozen=True):
    """Progress. `total` is None while the size is unknown."""

    done: int
    total: int | None
    bytes_per_s: float


Progress = Callable[[Moved], None]


def session(
    token: str | None = None,
    tls: ssl.SSLContext | bool = True,
    *,
    connect_s: float = CONNECT_S,
    silence_s: float = SILENCE_S,
) -> aiohttp.ClientSession:
    """A client for downloads. A token goes to the named server only, not where it redirects to."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "gpufc"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return aiohttp.ClientSession(
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s, sock_read=silence_s),
        connector=aiohttp.TCPConnector(ssl=tls),
        trust_env=True,
    )


class Transfer:
    """One file on its way. `run` once."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        wanted: WantedFile,
        folder: Path,
        progress: Progress = lambda _moved: None,
        *,
        wait_s: float = 1.0,
        tries: int = TRIES,
    ) -> None:
        """`wait_s` is the first wait after a cut; it doubles. `tries` are those in a row without a
        new byte."""
        self._http = http
        self._wanted = wanted
        self.file = PartFile(folder, wanted.name, wanted.url, wanted.size, wanted.sha256)
        self._progress = progress
        self._wait_s = wait_s
        self._tries = tries
        self._began = time.monotonic()
        self._n_begun = 0

    async def run(self) -> Path:
        """The file's path, once it is whole, right and in its place. Raises `DownloadFailed`."""
        file = self.file
        if await asyncio.to_thread(file.has_whole):
            return file.path
        try:
            with file.opened():
                await asyncio.to_thread(file.resume)
                self._n_begun = file.done
                await self._fetch()
                await asyncio.to_thread(file.settle)
        except OSError as err:
            raise DownloadFailed(f"{file.path} cannot be written: {err.strerror}") from err
        return file.path

    async def _fetch(self) -> None:
        """Fetch until all bytes are there."""
        file, n_vain, reason = self.file, 0, ""
        while file.size is None or file.done < file.size or not file.done:
            before = file.done
            try:
                if await self._fetch_once():
                    break
                reason = "the server ends the transfer early"
            except (aiohttp.ClientError, TimeoutError) as err:
                reason = str(err) or type(err).__name__
            n_vain = 0 if file.done > before else n_vain + 1
            if n_vain >= self._tries:
                times = f"; tried {self._tries} times" if self._tries > 1 else ""
                raise DownloadFailed(f"{self._wanted.url}: {reason}{times}")
            await asyncio.sleep(min(LONGEST_WAIT_S, self._wait_s * 2.0**n_vain))

    async def _fetch_once(self) -> bool:
        """One request. Whether it has brought the end of the file."""
        headers, file = {}, self.file
        if not (file.tag or self._wanted.sha256):
            file.begin_again()  # nothing would tell another file's bytes
        if file.done:
            headers["Range"] = f"bytes={file.done}-"
            if file.tag:
                headers["If-Range"] = file.tag
        url = self._wanted.url
        async with self._http.get(url, headers=headers, max_redirects=8) as response:
            hops = [*response.history, response]
            if urlsplit(url).scheme == "https" and any(r.url.scheme != "https" for r in hops):
                raise DownloadFailed(f"{url} redirects to a connection without TLS")
            total = self._judged(response)
            if response.status == UNSATISFIABLE or (response.status == OK and file.done):
                file.begin_again()  # another file than the one that was begun
                if response.status == UNSATISFIABLE:
                    return False
            self._require_total(total)
            await asyncio.to_thread(file.write_note, _strong(response.headers.get("ETag")))
            async for piece in response.content.iter_chunked(PIECE_BYTES):
                if file.size is not None and file.done + len(piece) > file.size:
                    raise DownloadFailed(f"{url} sends more than its {file.size} bytes")
                await asyncio.to_thread(file.take, piece)
                self._tell()
        return file.size is None or file.done == file.size

    def _judged(self, response: aiohttp.ClientResponse) -> int | None:
        """The size of the whole file, as this answer says it. Raises `DownloadFailed`."""
        status, headers = response.status, response.headers
        if status in GONE_FOR_GOOD:
            hint = "; a token may be needed (see --token-file)" if status in {401, 403} else ""
            raise DownloadFailed(f"{self._wanted.url}: {status} {response.reason}{hint}")
        if status == OK:
            return response.content_length
        if status == PARTIAL:
            unit, _, total = headers.get("Content-Range", "").partition("/")
            if not unit.startswith(f"bytes {self.file.done}-"):
                raise DownloadFailed(
                    f"{self._wanted.url} sends another part than the one asked for"
                )
            return int(total) if total.isdigit() else None
        if status == UNSATISFIABLE:
            return None
        raise aiohttp.ClientPayloadError(f"{status} {response.reason}")

    def _require_total(self, total: int | None) -> None:
        wanted, file = self._wanted, self.file
        if wanted.size is not None and total not in {None, wanted.size}:
            raise DownloadFailed(f"{wanted.url} has {total} bytes instead of {wanted.size}")
        file.size = wanted.size if total is None else total
        if file.size is not None:
            file.require_space(file.size - file.done)

    def _tell(self) -> None:
        seconds = max(1e-6, time.monotonic() - self._began)
        speed = (self.file.done - self._n_begun) / seconds
        self._progress(Moved(self.file.done, self.file.size, speed))


def _strong(tag: str | None) -> str | None:
    """A tag by which a server knows equal bytes; a weak one does not say that."""
    return None if tag is None or tag.startswith("W/") else tag
