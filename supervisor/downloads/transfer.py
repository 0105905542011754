"""The transfer of one file: in pieces, again after a cut, checked, and in its place at once.

The bytes gather in `NAME.part` beside the place, with a note of what they belong to. A transfer
that ends early goes on there, by this process or a later one. Only a whole and right file gets the
name. No byte that the server sends decides about a path.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import aiohttp
from msgspec import Struct

from gpufc.amount import amount
from gpufc.errors import GpufcError
from supervisor.downloads.wanted import WantedFile

PIECE_BYTES = 1 << 20
CONNECT_S, SILENCE_S = 20.0, 30.0
"""A server that sends nothing for this long is gone."""

TRIES = 8
"""In a row without a new byte."""

LONGEST_WAIT_S = 30.0
SPARE_BYTES = 256 * 1024 * 1024
"""Free space that a download leaves on the disk."""

OK, PARTIAL, UNSATISFIABLE = 200, 206, 416
GONE_FOR_GOOD = frozenset({400, 401, 403, 404, 410, 451})


class DownloadFailed(GpufcError):
    """A file that cannot be had. The text is for people."""


class Moved(Struct, frozen=True):
    """Progress. `total` is None while the size is unknown."""

    done: int
    total: int | None
    bytes_per_s: float


Progress = Callable[[Moved], None]


def session(token: str | None = None, tls: ssl.SSLContext | bool = True) -> aiohttp.ClientSession:
    """A client for downloads. A token goes to the named server only, not where it redirects to."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "gpufc"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return aiohttp.ClientSession(
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S),
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
    ) -> None:
        """`wait_s` is the first wait after a cut; it doubles."""
        self._http = http
        self._wanted = wanted
        self.path = folder / wanted.name
        self._part = folder / f"{wanted.name}.part"
        self._note = folder / f"{wanted.name}.part.json"
        self._progress = progress
        self._wait_s = wait_s
        self._hash = hashlib.sha256()
        self._done = 0
        self._total = wanted.size
        self._tag: str | None = None
        self._began = time.monotonic()
        self._n_begun = 0

    async def run(self) -> Path:
        """The file's path, once it is whole, right and in its place. Raises `DownloadFailed`."""
        if await asyncio.to_thread(self._has_it):
            return self.path
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._opened() as file:
                await asyncio.to_thread(self._resume, file)
                self._n_begun = self._done
                await self._fetch(file)
                await asyncio.to_thread(self._settle, file)
        except OSError as err:
            raise DownloadFailed(f"{self.path} cannot be written: {err.strerror}") from err
        return self.path

    def _has_it(self) -> bool:
        """Whether the right file is there already. Blocks while it is read."""
        wanted = self._wanted
        if not self.path.is_file():
            return False
        if wanted.size is not None and self.path.stat().st_size != wanted.size:
            return False
        if wanted.sha256 is None:
            return wanted.size is not None
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == wanted.sha256

    def _opened(self) -> IO[bytes]:
        """The part file, locked: two processes must not write to it."""
        import fcntl

        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.fdopen(os.open(self._part, flags, 0o600), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(file.fileno()), os.stat(self._part))
        except OSError:
            is_ours = False
        if not is_ours:  # or it has got its name meanwhile, and a worker may read it
            file.close()
            raise DownloadFailed(f"another process is downloading {self.path}") from None
        return file

    def _resume(self, file: IO[bytes]) -> None:
        """Go on where an earlier transfer of the same file has ended. Blocks while it is read."""
        known = self._read_note()
        if known.get("url") != self._wanted.url or known.get("sha256") != self._wanted.sha256:
            file.truncate(0)
        self._tag = known.get("tag") if isinstance(known.get("tag"), str) else None
        while piece := file.read(PIECE_BYTES):
            self._hash.update(piece)
            self._done += len(piece)
        if self._total is not None and self._done > self._total:
            self._begin_again(file)

    def _read_note(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._note.read_text())
            return found if isinstance(found, dict) else {}
        return {}

    def _write_note(self) -> None:
        wanted = self._wanted
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(self._note, flags, 0o600), "w") as file:
            json.dump({"url": wanted.url, "sha256": wanted.sha256, "tag": self._tag}, file)

    def _begin_again(self, file: IO[bytes]) -> None:
        file.seek(0)
        file.truncate(0)
        self._hash, self._done = hashlib.sha256(), 0

    # the network

    async def _fetch(self, file: IO[bytes]) -> None:
        """Fetch until all bytes are there."""
        n_vain, reason = 0, ""
        while self._total is None or self._done < self._total or not self._done:
            before = self._done
            try:
                if await self._fetch_once(file):
                    break
                reason = "the server ends the transfer early"
            except (aiohttp.ClientError, TimeoutError) as err:
                reason = str(err) or type(err).__name__
            n_vain = 0 if self._done > before else n_vain + 1
            if n_vain >= TRIES:
                raise DownloadFailed(f"{self._wanted.url}: {reason}; tried {TRIES} times")
            await asyncio.sleep(min(LONGEST_WAIT_S, self._wait_s * 2.0**n_vain))

    async def _fetch_once(self, file: IO[bytes]) -> bool:
        """One request. Whether it has brought the end of the file."""
        headers = {}
        if not (self._tag or self._wanted.sha256):
            self._begin_again(file)  # nothing would tell another file's bytes
        if self._done:
            headers["Range"] = f"bytes={self._done}-"
            if self._tag:
                headers["If-Range"] = self._tag
        url = self._wanted.url
        async with self._http.get(url, headers=headers, max_redirects=8) as response:
            hops = [*response.history, response]
            if urlsplit(url).scheme == "https" and any(r.url.scheme != "https" for r in hops):
                raise DownloadFailed(f"{url} redirects to a connection without TLS")
            total = self._judged(response)
            if response.status == UNSATISFIABLE or (response.status == OK and self._done):
                self._begin_again(file)  # another file than the one that was begun
                if response.status == UNSATISFIABLE:
                    return False
            self._require_total(total)
            self._tag = _strong(response.headers.get("ETag"))
            await asyncio.to_thread(self._write_note)
            async for piece in response.content.iter_chunked(PIECE_BYTES):
                if self._total is not None and self._done + len(piece) > self._total:
                    raise DownloadFailed(f"{url} sends more than its {self._total} bytes")
                await asyncio.to_thread(self._take, file, piece)
                self._tell()
        return self._total is None or self._done == self._total

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
            if not unit.startswith(f"bytes {self._done}-"):
                raise DownloadFailed(
                    f"{self._wanted.url} sends another part than the one asked for"
                )
            return int(total) if total.isdigit() else None
        if status == UNSATISFIABLE:
            return None
        raise aiohttp.ClientPayloadError(f"{status} {response.reason}")

    def _require_total(self, total: int | None) -> None:
        wanted = self._wanted
        if wanted.size is not None and total not in {None, wanted.size}:
            raise DownloadFailed(f"{wanted.url} has {total} bytes instead of {wanted.size}")
        self._total = wanted.size if total is None else total
        if self._total is not None:
            self._require_space(self._total - self._done)

    def _require_space(self, n_bytes: int) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if n_bytes > free - SPARE_BYTES:
            raise DownloadFailed(
                f"{self.path.parent} has {amount(free)} left, and {self._wanted.name} needs"
                f" {amount(n_bytes)} more"
            )

    def _take(self, file: IO[bytes], piece: bytes) -> None:
        if self._total is None:  # a server that does not end must not fill the disk
            self._require_space(len(piece))
        file.write(piece)
        self._hash.update(piece)
        self._done += len(piece)

    def _tell(self) -> None:
        seconds = max(1e-6, time.monotonic() - self._began)
        speed = (self._done - self._n_begun) / seconds
        self._progress(Moved(self._done, self._total, speed))

    # the end

    def _settle(self, file: IO[bytes]) -> None:
        """Check the whole file and give it its name. Blocks."""
        found = self._hash.hexdigest()
        if self._wanted.sha256 is not None and found != self._wanted.sha256:
            self._part.unlink()
            self._note.unlink(missing_ok=True)
            raise DownloadFailed(
                f"{self._wanted.name} is not the right file: its SHA-256 is {found}, not"
                f" {self._wanted.sha256}"
            )
        file.flush()
        os.fsync(file.fileno())
        self._part.replace(self.path)
        self._note.unlink(missing_ok=True)


def _strong(tag: str | None) -> str | None:
    """A tag by which a server knows equal bytes; a weak one does not say that."""
    return None if tag is None or tag.startswith("W/") else tag
