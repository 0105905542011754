"""Models that the server asks for: downloaded one after another, if the operator allows it.

The server's words are not trusted: a model needs an https address and a SHA-256, and only the base
name of what it calls the file. A file counts when it is whole and right (`supervisor/downloads`).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import aiohttp
from msgspec import Struct

from gpufc.errors import ConfigError
from supervisor.downloads import transfer
from supervisor.downloads.part_file import DownloadFailed
from supervisor.downloads.transfer import Moved, Transfer
from supervisor.downloads.wanted import WantedFile, base_name, digest
from supervisor.fabric.messages import DownloadStatus, ModelDownloadProgress, PodModel

logger = logging.getLogger(__name__)

TELL_EVERY_S = 10.0
AGAIN_S = 600.0
"""Before a model that could not be had is tried again."""

MOST_OFFERS = 16
"""Models of one session; the server has one for each kind of device."""

Tell = Callable[[ModelDownloadProgress], Awaitable[None]]


class Offer(Struct, frozen=True):
    """A model that may be downloaded."""

    file: WantedFile
    model_name: str


def offers(pods: Iterable[PodModel]) -> list[Offer]:
    """The models among the server's that can be accepted. Logs the others."""
    found = []
    for pod in pods:
        if pod.model_name is None:
            continue
        try:
            found.append(offer(pod, pod.model_name))
        except ConfigError as err:
            logger.warning("network_model_refused error=%s", err)
    return found[:MOST_OFFERS]


def offer(pod: PodModel, model_name: str) -> Offer:
    """A model that may be downloaded. Raises `ConfigError`."""
    if not (pod.download_url or "").startswith("https://"):
        raise ConfigError(f"{model_name[:80]!r} has no https address")
    if pod.checksum is None:
        raise ConfigError(f"{model_name[:80]!r} has no checksum")
    name, sha256 = base_name(model_name), digest(pod.checksum)
    return Offer(WantedFile(pod.download_url or "", name, pod.expected_size, sha256), model_name)


class Downloads:
    """Owns the one task that downloads. Invariant: at most one download runs."""

    def __init__(
        self,
        client_id: bytes,
        folder: Path,
        tell: Tell,
        new_session: Callable[[], aiohttp.ClientSession] = transfer.session,
    ) -> None:
        """`tell` sends to the server, if there is a session."""
        self._client_id = client_id
        self._folder = folder
        self._tell = tell
        self._new_session = new_session
        self._waiting: dict[WantedFile, Offer] = {}
        self._not_before: dict[WantedFile, float] = {}
        self._work: asyncio.Task[None] | None = None
        self.downloaded: tuple[str, ...] = ()
        """Names of the files that are there."""

    def take(self, pods: Iterable[PodModel]) -> None:
        """Download what is not there yet. Returns at once."""
        for one in offers(pods):
            if self._not_before.get(one.file, 0.0) <= time.monotonic():
                self._waiting.setdefault(one.file, one)
        if self._waiting and (self._work is None or self._work.done()):
            self._work = asyncio.create_task(self._download_all())

    async def stop(self) -> None:
        """End a download. It goes on where it ended when it is asked for again."""
        self._waiting.clear()
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    async def _download_all(self) -> None:
        async with self._new_session() as http:
            while self._waiting:
                file = next(iter(self._waiting))
                self._not_before[file] = time.monotonic() + AGAIN_S
                await self._download(http, self._waiting[file])
                self._waiting.pop(file, None)

    async def _download(self, http: aiohttp.ClientSession, one: Offer) -> None:
        last = Moved(0, one.file.size, 0.0)
        transfer = Transfer(http, one.file, self._folder, self._noting(one))
        try:
            path = await transfer.run()
        except DownloadFailed as err:
            logger.warning("network_model_failed model=%s error=%s", one.file.name, err)
            await self._say(one, last, DownloadStatus.FAILED, str(err)[:500])
            return
        size = path.stat().st_size
        self.downloaded = (*self.downloaded, path.name)
        self._not_before[one.file] = float("inf")
        logger.info("network_model_downloaded model=%s bytes=%d", path.name, size)
        await self._say(one, Moved(size, size, 0.0), DownloadStatus.COMPLETED)

    def _noting(self, one: Offer) -> Callable[[Moved], None]:
        """Tell the server of progress now and then."""
        told_at = time.monotonic() - TELL_EVERY_S
        telling: set[asyncio.Task[None]] = set()

        def note(moved: Moved) -> None:
            nonlocal told_at
            if time.monotonic() - told_at >= TELL_EVERY_S and not telling:
                told_at = time.monotonic()
                task = asyncio.create_task(self._say(one, moved, DownloadStatus.DOWNLOADING))
                telling.add(task)
                task.add_done_callback(telling.discard)

        return note

    async def _say(
        self, one: Offer, moved: Moved, status: DownloadStatus, error: str | None = None
    ) -> None:
        total = moved.total or one.file.size or moved.done
        with contextlib.suppress(OSError, EOFError):
            await self._tell(
                ModelDownloadProgress(
                    client_id=self._client_id,
                    model_name=one.model_name,
                    downloaded_bytes=moved.done,
                    total_bytes=total,
                    percentage=100.0 * moved.done / total if total else 0.0,
                    speed_bps=round(moved.bytes_per_s),
                    status=status,
                    error=error,
                )
            )
