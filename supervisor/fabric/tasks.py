"""The tasks of one session with the control server: they run, wait, or are refused.

A task has exactly one `done` chunk, its last one, whatever happens to it; without it the server
keeps the task for ever. A task that is cancelled gets one too.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

from msgspec import Struct

from gpufc.errors import EngineUnavailable, InternalError, RequestError
from supervisor.answers.parts import Part
from supervisor.dispatch.request import Principal
from supervisor.dispatch.stream import ResponseStream
from supervisor.fabric.answer import Answer
from supervisor.fabric.link import LOST
from supervisor.fabric.messages import InferenceResultChunk
from supervisor.fabric.request import Task, request_of
from supervisor.http.edge.context import Services

logger = logging.getLogger(__name__)

COALESCE_S = 0.03
"""The least time between two chunks of a task."""

LEAVING = "This machine is leaving the network"
UNSENT = "A part of the answer could not be sent"

MOST_AT_ONCE = 1_000_000
"""Without a limit of the network's own: dispatch has its queue."""

MOST_ID_CHARS = 256
"""The server's ids are UUIDs. A chunk must have room beside its id."""

Send = Callable[[InferenceResultChunk], Awaitable[None]]
"""Raises one of `link.LOST`, waits for a slow server."""


class TaskCounts(Struct):
    """What became of all tasks since the start. Shared by all sessions."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    refused: int = 0
    lost: int = 0
    """Their session ended before they did."""
    generated_tokens: int = 0


class _Run:
    """One task that runs. It may be cancelled before it has a stream."""

    def __init__(self, work: "asyncio.Task[None]") -> None:
        self.work = work
        self.stream: ResponseStream | None = None
        self.is_cancelled = False

    def cancel(self, error: RequestError | None = None) -> None:
        self.is_cancelled = True
        if self.stream is not None:
            self.stream.cancel(error)


class Tasks:
    """Invariant: at most `n_running` tasks run and `n_waiting` wait. Nothing starts after `leave`
    and nothing is left after `end`."""

    def __init__(
        self,
        front: Services,
        principal: Principal,
        send: Send,
        counts: TaskCounts,
        *,
        n_running: int,
        n_waiting: int,
    ) -> None:
        self._front = front
        self._principal = principal
        self._send = send
        self._counts = counts
        self._n_running = n_running
        self._n_waiting = n_waiting
        self._waiting: dict[str, Task] = {}
        self._running: dict[str, _Run] = {}

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def take(self, task: Task) -> None:
        """Start a task, or let it wait. Waits itself only while it refuses one."""
        if len(task.task_id) > MOST_ID_CHARS:
            logger.warning("network_task_ignored id_chars=%d", len(task.task_id))
        elif task.task_id in self._waiting or task.task_id in self._running:
            logger.warning("network_task_repeated task=%s", task.task_id)
        elif len(self._running) < self._n_running:
            self._start(task)
        elif len(self._waiting) < self._n_waiting:
            self._waiting[task.task_id] = task
        else:
            self._counts.refused += 1
            await self._send(Answer(task.task_id).done(error="Too many tasks are waiting"))

    async def cancel(self, task_id: str) -> None:
        """End a task, which still gets its `done`. One that is unknown has ended already."""
        if self._waiting.pop(task_id, None) is not None:
            self._counts.cancelled += 1
            await self._send(Answer(task_id).done())
        elif task_id in self._running:
            self._running[task_id].cancel()

    def hand_over(self) -> None:
        """Start all that wait: the queue does not outlive the session."""
        self._n_running, self._n_waiting = MOST_AT_ONCE, 0
        waiting, self._waiting = self._waiting, {}
        for task in waiting.values():
            self._start(task)

    async def wait_idle(self) -> None:
        """Wait for the end of every task that runs. None may be added meanwhile."""
        while running := [run.work for run in self._running.values()]:
            await asyncio.wait(running)

    async def leave(self) -> None:
        """Refuse new tasks, and end all others with an error. Returns when the server has it."""
        self._n_running = self._n_waiting = 0
        waiting, self._waiting = self._waiting, {}
        for run in self._running.values():
            run.cancel(EngineUnavailable(LEAVING))
        for task_id in waiting:
            self._counts.failed += 1
            await self._send(Answer(task_id).done(error=LEAVING))
        await self.wait_idle()

    async def end(self) -> None:
        """End all tasks: their server is gone. Returns when nothing of them is left."""
        self._n_running = self._n_waiting = 0
        self._counts.lost += len(self._waiting)
        self._waiting.clear()
        running = [run.work for run in self._running.values()]
        for work in running:
            work.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _start(self, task: Task) -> None:
        work = asyncio.create_task(self._run(task))
        self._running[task.task_id] = _Run(work)
        work.add_done_callback(lambda _: self._ended(task.task_id))

    def _ended(self, task_id: str) -> None:
        del self._running[task_id]
        if self._waiting:
            self._start(self._waiting.pop(next(iter(self._waiting))))

    async def _run(self, task: Task) -> None:
        try:
            await self._answer(task)
        except LOST:
            self._counts.lost += 1  # the session is ending
        except asyncio.CancelledError:
            self._counts.lost += 1
            raise

    async def _answer(self, task: Task) -> None:
        """Send the whole answer of a task. Raises one of `link.LOST`."""
        run, answer = self._running[task.task_id], Answer(task.task_id)
        error: RequestError | None = None
        try:
            if not run.is_cancelled:
                request = request_of(self._front, task)
                run.stream = self._front.submit(request, self._principal)
                await self._relay(run.stream, answer)
        except RequestError as err:
            error = err
        except LOST:
            error = InternalError(UNSENT)  # if the connection is gone, the next `send` says so
        except Exception:  # the boundary of a request: the server must get its end
            logger.exception("network_task_failed task=%s", task.task_id)
            error = InternalError("Something went wrong on our side")
        finally:
            was_cancelled = run.is_cancelled
            run.cancel()
        usage = run.stream.usage if run.stream else None
        self._counts.generated_tokens += usage.completion if usage else 0
        await self._send(answer.done(usage, error.message if error else None))
        if error is not None:
            self._counts.failed += 1
        elif was_cancelled:
            self._counts.cancelled += 1
        else:
            self._counts.succeeded += 1

    async def _relay(self, stream: ResponseStream, answer: Answer) -> None:
        """Send what the stream gains, in one piece for each `COALESCE_S`: it gathers meanwhile."""
        while events := await stream.next(math.inf):
            parts: list[Part] = [part for event in events for part in event.parts]
            for chunk in answer.chunks(parts, stream.usage):
                await self._send(chunk)
            if not stream.done:
                await asyncio.sleep(COALESCE_S)
