"""The files of this front's models for hosts that lack them. Files are read in threads.

    begin ──▶ Obtain with samples ──▶ Obtained: the host has them already
                   └── Lacking ──▶ a turn, checksums ──▶ Obtain with checksums, pieces ──▶ Obtained

A host can ask for the files of its own jobs only, by numbers. `MOST_COPYING` jobs have a turn at
once: the first machines are ready earlier than if all shared the network.
"""

import asyncio
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakKeyDictionary

from msgspec import Struct, structs

from gpufc.config import ModelConfig
from gpufc.errors import LinkError
from gpufc.ids import Epoch
from gpufc.printable import printable
from supervisor.cluster.messages import (
    PIECE_BYTES,
    AskPiece,
    Forgo,
    Lacking,
    NotObtained,
    Obtain,
    Obtained,
    Obtaining,
    Piece,
    Trouble,
    WantedModel,
)
from supervisor.cluster.port import HostChannel
from supervisor.downloads.checksums import Checksums, Over, Told
from supervisor.remote.sources import Replaced, Source, Unsendable, described, way_to

logger = logging.getLogger(__name__)

MOST_COPYING = 2
STALLED_S = 60.0
"""A host that gets no further for so long loses its turn."""

TELL_S = 0.5
MOST_UNRECEIVED = 128
"""Pieces that a host may have asked for without a sign that they have come. They lie in memory. A
host asks for `window.MOST` ahead; those of an ended job may be on their way before them."""

LOOP_SHARE = 0.2
"""The part of the event loop's time that pieces may take: tokens come first."""

FromSupplied = Lacking | Obtaining | Obtained | NotObtained | AskPiece


class SupplyListener(Struct, frozen=True):
    """The functions of a job's owner: `ready` or `failed` is called once, and nothing after it."""

    ready: Callable[[], None]
    progress: Callable[[str], None]
    failed: Callable[[str], None]


class Job:
    """The files of one epoch on their way to one host. `Supply` owns it."""

    def __init__(self, channel: HostChannel, epoch: Epoch, listener: SupplyListener) -> None:
        self.channel = channel
        self.epoch = epoch
        self.listener = listener
        self.models: tuple[WantedModel, ...] = ()
        self.sources: dict[int, Source] = {}
        self.is_lacking = False
        """The host has said so; it gets copies when it is its turn."""
        self.has_turn = False
        self.n_waiting = 0
        self.progress = ("", 0)
        """The host's last action, and its bytes."""
        self.n_read = 0
        self.over = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    def read(self, n_bytes: int) -> None:
        """So many bytes of a file have been read for its checksum. Called in any thread. Raises
        `Over`, which ends the reading."""
        if self.over.is_set():
            raise Over("its job is over")
        self.n_read = n_bytes


class Supply:
    """All jobs. In the event loop's thread."""

    def __init__(self, checksums: Checksums | None = None, mirror: str = "") -> None:
        """`mirror` is a URL where hosts look for files by their names before they ask the front."""
        self._checksums = checksums or Checksums(None)
        self._mirror = mirror
        self._jobs: dict[Epoch, Job] = {}
        self._turns = asyncio.Semaphore(MOST_COPYING)
        self._copying: dict[str, asyncio.Lock] = {}
        """One turn for each machine: its copies come one after the other."""
        self._reading = asyncio.Lock()
        """One file at a time is read for its checksum: two jobs often need the same."""
        self._reader = ThreadPoolExecutor(1, "checksums")
        """A disk that hangs holds this thread, and not those of the event loop."""
        self._asks: deque[tuple[Job, AskPiece]] = deque()
        self._on_way: WeakKeyDictionary[HostChannel, deque[int]] = WeakKeyDictionary()
        """The receipts of pieces that each host was sent and has not shown to have, in order."""
        self._server: asyncio.Task[None] | None = None

    def begin(
        self,
        channel: HostChannel,
        epoch: Epoch,
        config: ModelConfig,
        listener: SupplyListener,
        within: Sequence[str] = (),
    ) -> None:
        """Have a host obtain a model's files. Files that the front itself lacks are left to the
        worker, which opens the same path there. `within` are the places that a model's files must
        lie in, by real paths; without any, all files pass."""
        job = self._jobs[epoch] = Job(channel, epoch, listener)
        self._do(job, lambda: self._offer(job, config, within))

    def end(self, epoch: Epoch) -> None:
        """The files are not needed any more, or their host is lost. May be called again."""
        job = self._jobs.get(epoch)
        if job is not None:
            job.channel.send(Forgo(epoch))
            self._close(job)

    def close(self) -> None:
        """End all jobs."""
        for epoch in [*self._jobs]:
            self.end(epoch)
        if self._server is not None:
            self._server.cancel()
        self._reader.shutdown(wait=False, cancel_futures=True)

    def message(self, channel: HostChannel, message: FromSupplied) -> None:
        """A host's message. One of an ended job is dropped."""
        job = self._jobs.get(message.epoch)
        if job is None or job.channel is not channel:
            return
        match message:
            case Lacking():
                if not job.is_lacking:
                    job.is_lacking = True
                    self._do(job, lambda: self._give(job))
            case Obtaining():
                job.progress = (message.action, message.done_bytes)
                share = 100 * message.done_bytes // max(1, message.total_bytes)
                text = f"{message.action} {message.name}, {share} %"
                job.listener.progress(printable(text))
            case Obtained():
                self._close(job)
                job.listener.ready()
            case NotObtained():
                self._fail(job, message.trouble, printable(message.detail))
            case AskPiece():
                self._ask(job, message)

    # jobs

    def _do(self, job: Job, work: Callable[[], Coroutine[None, None, None]]) -> None:
        task = asyncio.create_task(
            self._bounded(job, work), name=f"files for {job.channel.machine}"
        )
        job.tasks.add(task)
        task.add_done_callback(job.tasks.discard)

    async def _bounded(self, job: Job, work: Callable[[], Coroutine[None, None, None]]) -> None:
        try:
            await work()
        except (OSError, LinkError) as err:
            self._fail(job, Trouble.UNREADABLE, str(err))
        except Unsendable as err:
            self._fail(job, Trouble.FAILED, str(err))
        except Exception as err:  # the boundary: its owner waits for a word
            logger.exception("files_given_up machine=%s", job.channel.machine)
            self._fail(job, Trouble.FAILED, f"{type(err).__name__}: {err}")

    def _close(self, job: Job) -> None:
        if self._jobs.get(job.epoch) is job:
            del self._jobs[job.epoch]
        job.over.set()
        for task in job.tasks:
            if task is not asyncio.current_task():
                task.cancel()

    def _fail(self, job: Job, trouble: Trouble, detail: str) -> None:
        machine = job.channel.machine
        logger.warning("model_not_obtained machine=%s trouble=%s: %s", machine, trouble, detail)
        self._close(job)
        job.listener.failed(f"{trouble.value.replace('_', ' ')}: {detail}")

    async def _offer(self, job: Job, config: ModelConfig, within: Sequence[str]) -> None:
        job.models, job.sources = await asyncio.to_thread(
            described, self._checksums, config, within
        )
        if job.models:
            job.channel.send(Obtain(job.epoch, job.models, self._mirror))
        else:
            self._close(job)
            job.listener.ready()

    async def _give(self, job: Job) -> None:
        """Let the host have copies, when it is its turn."""
        machine = self._copying.setdefault(job.channel.machine, asyncio.Lock())
        if self._turns.locked() or machine.locked():
            job.listener.progress("waits until others have their copies")
        async with machine, self._turns:
            job.has_turn = True
            async with self._reading:
                models = [await self._with_checksums(job, model) for model in job.models]
            job.channel.send(Obtain(job.epoch, tuple(models), self._mirror))
            await self._watched(job)

    async def _watched(self, job: Job) -> None:
        """Wait for the end of a job that gets further."""
        while not job.over.is_set():
            before = job.progress
            try:
                async with asyncio.timeout(STALLED_S):
                    await job.over.wait()
            except TimeoutError:
                if job.progress == before:
                    self._fail(job, Trouble.STALLED, f"no progress for {STALLED_S:g} s")
                    job.channel.send(Forgo(job.epoch))

    # files

    async def _with_checksums(self, job: Job, model: WantedModel) -> WantedModel:
        parts = []
        for part in model.parts:
            source, loop = job.sources[part.number], asyncio.get_running_loop()
            reading = loop.run_in_executor(self._reader, self._sha256, source, job.read)
            try:
                while not (await asyncio.wait((reading,), timeout=TELL_S))[0]:
                    share = 100 * job.n_read // max(1, part.size)
                    job.listener.progress(f"reading {part.name} for its checksum, {share} %")
            finally:
                reading.cancel()  # one that has not begun; `Job.read` ends another
            parts.append(structs.replace(part, sha256=reading.result()))
        return structs.replace(model, parts=tuple(parts))

    def _sha256(self, source: Source, told: Told) -> str:
        with source.opened() as fd:
            return self._checksums.sha256(source.path, told, way_to(fd))

    # pieces

    def _ask(self, job: Job, ask: AskPiece) -> None:
        on_way = self._on_way.setdefault(job.channel, deque())
        if ask.receipt in on_way:
            while on_way.popleft() != ask.receipt:
                pass
        source = job.sources.get(ask.number)
        if (
            not job.has_turn
            or source is None
            or ask.offset >= source.n_bytes
            or len(on_way) + job.n_waiting >= MOST_UNRECEIVED
        ):
            logger.warning("piece_refused machine=%s number=%d", job.channel.machine, ask.number)
            return
        job.n_waiting += 1
        self._asks.append((job, ask))
        if self._server is None or self._server.done():
            self._server = asyncio.create_task(self._serve(), name="pieces of models")

    async def _serve(self) -> None:
        """Send what was asked for, in order. Ends when there is nothing more."""
        while self._asks:
            job, ask = self._asks.popleft()
            took_s = 0.0
            try:
                if not job.over.is_set():
                    took_s = await self._send(job, ask)
            except Exception as err:  # the boundary: other jobs wait for their pieces
                logger.exception("piece_not_sent machine=%s", job.channel.machine)
                if not job.over.is_set():
                    self._fail(job, Trouble.FAILED, f"{type(err).__name__}: {err}")
                    job.channel.send(Forgo(job.epoch))
            finally:
                job.n_waiting -= 1
            await asyncio.sleep(took_s * (1 / LOOP_SHARE - 1))

    async def _send(self, job: Job, ask: AskPiece) -> float:
        """Send one piece. Returns the seconds that it has taken of this thread."""
        data, fault = await asyncio.to_thread(_read, job.sources[ask.number], ask.offset)
        receipt = secrets.randbits(62) + 1
        self._on_way.setdefault(job.channel, deque()).append(receipt)
        began = time.thread_time()
        job.channel.send(Piece(ask.epoch, ask.number, ask.offset, data, fault, receipt))
        return time.thread_time() - began  # others may run meanwhile


def _read(source: Source, offset: int) -> tuple[bytes, str]:
    """A piece, or the reason for none. The file is opened each time: a descriptor that is kept
    could be another file's by the end of its job."""
    try:
        with source.opened() as fd:
            return os.pread(fd, PIECE_BYTES, offset), ""
    except Replaced as err:
        return b"", str(err)
    except OSError as err:
        return b"", f"the front cannot read it: {err.strerror or err}"
