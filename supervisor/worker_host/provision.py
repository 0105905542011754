"""Has the model files of each worker at hand before it is started, one job for each epoch.

A job looks at the front's paths, then into the models folder, then has copies made. It reports how
it goes; it ends with `Obtained` or `NotObtained`, or without a word when the front is gone. What
has come of a file stays for the next job.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from gpufc.config import ModelConfig
from gpufc.ids import Epoch
from supervisor.cluster.messages import (
    AskPiece,
    FromHost,
    Lacking,
    ModelPart,
    NotObtained,
    Obtain,
    Obtained,
    Obtaining,
    Piece,
    Trouble,
    WantedModel,
)
from supervisor.downloads.checksums import Over
from supervisor.worker_host.copying import Copy, NotHad
from supervisor.worker_host.library import Library, located

logger = logging.getLogger(__name__)

Report = Callable[[FromHost], None]


class Job:
    """One epoch's files. `Provision` owns it."""

    def __init__(self, wanted: Obtain) -> None:
        self.wanted = wanted
        self.task: asyncio.Task[None] | None = None
        self.copy: Copy | None = None
        self.action = ""
        self.part: ModelPart | None = None
        self.done: dict[int, int] = {}
        """Part's number → bytes of it that are there, or have been checked."""
        self.total = 0
        self.is_over = False

    def begin(self, action: str, models: Iterable[WantedModel]) -> None:
        """Begin to count for an action."""
        self.action, self.done = action, {}
        self.total = sum(part.size for model in models for part in model.parts)

    def told(self, part: ModelPart, n_bytes: int) -> None:
        """So many bytes of a part are done. Called in any thread. Raises `Over`, which ends the
        reading of a file."""
        if self.is_over:
            raise Over("its job is over")
        self.part = part
        self.done[part.number] = n_bytes

    def progress(self) -> Obtaining | None:
        """The job's row; None before there is anything to tell."""
        part = self.part
        if part is None:
            return None
        done = sum(dict(self.done).values())
        return Obtaining(self.wanted.epoch, self.action, part.name, done, self.total)


class Provision:
    """All jobs of a host. In the event loop's thread."""

    def __init__(self, library: Library, report: Report, say: Callable[[str], None]) -> None:
        self._library = library
        self._report = report
        self._say = say
        self._jobs: dict[Epoch, Job] = {}
        self._paths: dict[Epoch, dict[str, str]] = {}
        self._copying = asyncio.Lock()
        """One copy at a time: two models of equal files are copied once, and each comes faster."""
        self._reader = ThreadPoolExecutor(1, "checksums")
        """A disk that hangs holds this thread, and not those of the event loop."""
        self._receipt = 0
        """That of the last piece that has come."""

    def obtain(self, wanted: Obtain) -> None:
        """Begin, or begin again with the checksums."""
        self.forgo(wanted.epoch)
        job = self._jobs[wanted.epoch] = Job(wanted)
        job.task = asyncio.create_task(self._run(job), name=f"files of epoch {wanted.epoch}")

    def forgo(self, epoch: Epoch) -> None:
        """End a job. May be called again."""
        self._paths.pop(epoch, None)
        job = self._jobs.pop(epoch, None)
        if job is not None and job.task is not None:
            job.is_over = True
            job.task.cancel()

    def forgo_all(self) -> None:
        """The connection is gone."""
        self._receipt = 0
        for epoch in [*self._jobs, *self._paths]:
            self.forgo(epoch)

    def take(self, piece: Piece) -> None:
        """A piece of a file. One that no job waits for is dropped."""
        self._receipt = piece.receipt
        job = self._jobs.get(piece.epoch)
        if job is not None and job.copy is not None:
            job.copy.take(piece)

    def here(self, epoch: Epoch, model: ModelConfig) -> ModelConfig:
        """A worker's configuration with this machine's paths."""
        return located(model, self._paths.pop(epoch, {}))

    def look(self) -> None:
        """Report how all jobs go."""
        for job in self._jobs.values():
            if (row := job.progress()) is not None:
                self._report(row)

    async def _run(self, job: Job) -> None:
        epoch = job.wanted.epoch
        try:
            paths = await self._found(job)
        except NotHad as err:
            self._say(f"model not obtained: {err}")
            logger.warning("not_obtained epoch=%d trouble=%s: %s", epoch, err.trouble, err)
            self._end(job, NotObtained(epoch, err.trouble, str(err)[:1024]))
        except Exception as err:  # the boundary: the front has to hear of it
            logger.exception("not_obtained epoch=%d", epoch)
            text = f"{type(err).__name__}: {err}"
            self._end(job, NotObtained(epoch, Trouble.FAILED, text[:1024]))
        else:
            if paths is None:
                self._end(job, Lacking(epoch))
                return
            self._end(job, Obtained(epoch))
            self._paths[epoch] = paths

    def _end(self, job: Job, message: FromHost) -> None:
        self._jobs.pop(job.wanted.epoch, None)
        self._report(message)

    async def _found(self, job: Job) -> dict[str, str] | None:
        """Front's path → path here of each model; None if checksums are needed. Raises `NotHad`."""
        paths, lacking = {}, []
        for model in job.wanted.models:
            found = await asyncio.to_thread(self._library.in_place, model)
            if found is None:
                lacking.append(model)
            else:
                paths[model.path] = str(found)
        if any(part.sha256 is None for model in lacking for part in model.parts):
            return None
        job.begin("checking", lacking)
        absent = []
        for model in lacking:
            found = await asyncio.get_running_loop().run_in_executor(
                self._reader, self._library.find, model, job.told
            )
            if found is None:
                absent.append(model)
            else:
                paths[model.path] = str(found)
        if absent:
            paths |= await self._copied(job, absent)
        return paths

    async def _copied(self, job: Job, models: list[WantedModel]) -> dict[str, str]:
        epoch, paths = job.wanted.epoch, {}
        async with self._copying:
            job.begin("copying", models)
            for model in models:
                self._say(f"copying {model.parts[0].name}")
                job.copy = Copy(
                    self._library,
                    model,
                    job.wanted.mirror,
                    lambda number, offset: self._report(
                        AskPiece(epoch, number, offset, self._receipt)
                    ),
                    job.told,
                )
                paths[model.path] = str(await job.copy.run())
                self._say(f"{model.parts[0].name} is here, and its checksum is right")
        return paths
