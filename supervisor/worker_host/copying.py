"""The copy of one model's files from the front, over the connection that exists, or from a mirror.

A piece is asked for at a time, or as many as the connection carries without a queue (`window`).
Work on the disk is done in threads.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from gpufc.errors import GpufcError
from supervisor.cluster.messages import (
    PIECE_BYTES,
    ModelPart,
    Piece,
    Trouble,
    WantedModel,
)
from supervisor.downloads.part_file import (
    DownloadFailed,
    InUse,
    NoSpace,
    PartFile,
    WrongChecksum,
)
from supervisor.downloads.wanted import WantedFile
from supervisor.worker_host.library import Library
from supervisor.worker_host.window import Window

logger = logging.getLogger(__name__)

PIECE_S = 30.0
"""A front that sends no piece for so long has cut the transfer."""

MIRROR_CONNECT_S, MIRROR_SILENCE_S = 5.0, 15.0
"""A mirror that is silent for so long is given up. The front takes a host's turn after 60 s without
progress (`supply.STALLED_S`), so both have to be well below."""

AGAIN_S = 0.5
"""Between two looks at a file that another process copies."""

OF_FRONT = "the front"
"""The source in a part's note."""

Ask = Callable[[int, int], None]
"""Ask for the piece of a part's number at an offset."""

Told = Callable[[ModelPart, int], None]
"""Gets the bytes of a part that are there."""


class NotHad(GpufcError):
    """The files cannot be had. The text is for people."""

    def __init__(self, trouble: Trouble, text: str) -> None:
        super().__init__(text)
        self.trouble = trouble


class Copy:
    """One model's parts on their way into the library. `run` once. In the event loop's thread."""

    def __init__(
        self, library: Library, model: WantedModel, mirror: str, ask: Ask, told: Told
    ) -> None:
        self._library = library
        self._model = model
        self._mirror = mirror
        self._ask = ask
        self._told = told
        self._pieces: asyncio.Queue[Piece] = asyncio.Queue()

    def take(self, piece: Piece) -> None:
        """A piece of the front."""
        self._pieces.put_nowait(piece)

    async def run(self) -> Path:
        """The first part's path, once all are verified and in their place. Raises `NotHad`."""
        folder = self._library.place_of(self._model)
        for part in self._model.parts:
            path = folder / part.name
            try:
                await self._have(path, part)
            except NoSpace as err:
                raise NotHad(Trouble.NO_SPACE, str(err)) from err
            except WrongChecksum as err:
                raise NotHad(Trouble.CHECKSUM, str(err)) from err
            except OSError as err:
                text = f"{path} cannot be written: {err.strerror or err}"
                raise NotHad(Trouble.FAILED, text) from err
            except DownloadFailed as err:
                raise NotHad(Trouble.FAILED, str(err)) from err
        return folder / self._model.parts[0].name

    async def _have(self, path: Path, part: ModelPart) -> None:
        while True:
            if await asyncio.to_thread(self._library.has, path, part, self._told):
                return
            try:
                if not (self._mirror and await self._had_of_mirror(part, path.parent)):
                    await self._have_of_front(path, part)
                remember = self._library.checksums.remember
                await asyncio.to_thread(remember, path, part.sha256 or "")
                return
            except InUse:  # by another host of this machine
                await asyncio.sleep(AGAIN_S)

    async def _had_of_mirror(self, part: ModelPart, folder: Path) -> bool:
        """Whether the mirror has given the file. The front has it in any case."""
        from supervisor.downloads.transfer import Transfer, session

        url = f"{self._mirror.rstrip('/')}/{quote(part.name)}"
        wanted = WantedFile(url, part.name, part.size, part.sha256)
        async with session(connect_s=MIRROR_CONNECT_S, silence_s=MIRROR_SILENCE_S) as http:
            try:
                await Transfer(
                    http,
                    wanted,
                    folder,
                    lambda moved: self._told(part, moved.done),
                    wait_s=0.1,
                    tries=1,
                ).run()
            except (InUse, NoSpace):
                raise
            except DownloadFailed as err:
                logger.warning("mirror_failed, the front is asked instead: %s", err)
                return False
        return True

    async def _have_of_front(self, path: Path, part: ModelPart) -> None:
        """Copy the file behind the bytes that are there. They may be a mirror's, and wrong: then
        all bytes are copied."""
        while True:
            file = PartFile(path.parent, part.name, OF_FRONT, part.size, part.sha256)
            try:
                await self._copy(file, part)
                return
            except WrongChecksum as err:  # nothing is kept, so the next attempt is the last
                if not file.n_kept:
                    raise
                logger.warning("part_dropped, all of it is copied again: %s", err)

    async def _copy(self, file: PartFile, part: ModelPart) -> None:
        with file.opened():
            await asyncio.to_thread(file.resume, lambda n_bytes: self._told(part, n_bytes))
            await asyncio.to_thread(file.require_space, part.size - file.done)
            await asyncio.to_thread(file.write_note)
            self._told(part, file.done)
            window, asked_at = Window(), dict[int, float]()
            offsets = iter(range(file.done, part.size, PIECE_BYTES))
            while file.done < part.size:
                for offset in _some(offsets, window):
                    asked_at[offset] = time.monotonic()
                    self._ask(part.number, offset)
                data = await self._next(part, file.done)
                window.came(time.monotonic() - asked_at.pop(file.done))
                await asyncio.to_thread(file.take, data)
                self._told(part, file.done)
            await asyncio.to_thread(file.settle)

    async def _next(self, part: ModelPart, offset: int) -> bytes:
        """The bytes of the piece that has to come next. Raises `NotHad`."""
        length = min(PIECE_BYTES, part.size - offset)
        while True:
            try:
                async with asyncio.timeout(PIECE_S):
                    piece = await self._pieces.get()
            except TimeoutError:
                text = f"the front has sent nothing of {part.name} for {PIECE_S:g} s"
                raise NotHad(Trouble.CUT, text) from None
            if (piece.number, piece.offset) != (part.number, offset):
                continue  # of an attempt before this one
            if piece.fault:
                raise NotHad(Trouble.UNREADABLE, f"{part.name}: {piece.fault}")
            if len(piece.data) != length:
                text = f"{part.name} is another file at the front by now"
                raise NotHad(Trouble.UNREADABLE, text)
            return piece.data


def _some(offsets: Iterator[int], window: Window) -> Iterator[int]:
    """The next offsets, as many as the window has room for."""
    while window.has_room and (offset := next(offsets, None)) is not None:
        window.asked()
        yield offset
