"""The port between a runner and the machine, and its one real adapter.

Tests of the runner put a fake process and a fake link behind the same port. The adapter hands the
spare worker out: to a runner it is the same as a new process.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from signal import Signals
from typing import Protocol

import zmq
from msgspec import structs

from gpufc.ids import Epoch, WorkerName
from gpufc.protocol import Boot, ToWorker
from supervisor.descriptors import Reserve
from supervisor.fleet.crash_record import MAX_LOG_BYTES
from supervisor.fleet.exit_reason import ExitReason, classify, device_memory
from supervisor.fleet.followed import ExitListener as SystemExitListener
from supervisor.fleet.followed import Lent
from supervisor.fleet.link import WorkerLink
from supervisor.fleet.oom import OomCounter
from supervisor.fleet.peer import BrokenListener, MessageListener
from supervisor.fleet.process import WorkerProcess
from supervisor.fleet.standby import SparePool
from supervisor.fleet.watchdog import Vitals
from supervisor.fleet.worker_log import WorkerLog
from supervisor.runtime_dir import RuntimeDir

ExitListener = Callable[[ExitReason], None]


class Link(Protocol):
    """A bound socket for one process (`link.WorkerLink`)."""

    endpoint: str

    def expect(self, pid: int) -> None: ...
    def send(self, message: ToWorker) -> None: ...
    def drain_now(self) -> None: ...
    def close(self) -> None: ...


class Process(Protocol):
    """One running process (`process.WorkerProcess`)."""

    @property
    def pid(self) -> int | None:
        """None while another machine has not said it; the hello says it, too."""
        ...

    @property
    def machine(self) -> str | None:
        """Its machine's name; None for the front's own."""
        ...

    def boot(self, boot: Boot) -> None: ...
    def signal(self, number: Signals, *, group: bool = False) -> None: ...
    def vitals(self) -> Vitals | None: ...
    def rss_bytes(self) -> int: ...
    def anonymous_bytes(self) -> int | None: ...
    def watch_end(self) -> None: ...
    def lend(self) -> Lent: ...
    def let_go(self) -> None: ...


class EndingProcess(Process, Protocol):
    """A process of this machine, which calls `on_ending` as `Edge.spawn` says."""

    on_ending: SystemExitListener


TakeOver = Callable[[Path, SystemExitListener], EndingProcess]
"""Takes a running process over, given its log and a listener for its end."""


class Edge(Protocol):
    """How a runner gets a link and a process. Called in the event loop's thread."""

    def open_link(
        self, epoch: Epoch, token: str, *, on_message: MessageListener, on_broken: BrokenListener
    ) -> Link:
        """A bound link. Raises `OSError`."""
        ...

    def spawn(self, worker: WorkerName, on_exit: ExitListener, on_ending: ExitListener) -> Process:
        """A process that waits for its boot message; `on_exit` is called once. Raises `OSError`.

        `on_ending` may be called once before, from `Process.watch_end` on: the process runs no
        more, and its memory is being given back.

        A machine that turns out to be unable to start it reports an end of SPAWN_FAILED."""
        ...

    def log_mark(self, worker: WorkerName) -> int:
        """The end of a worker's log now."""
        ...

    def log_since(self, worker: WorkerName, mark: int) -> bytes:
        """The last `MAX_LOG_BYTES` that were written to a worker's log since `mark`."""
        ...


class LocalEdge:
    """Real processes of this machine and real sockets in the runtime folder.

    `open_link` makes the folder anew if it has vanished, and gives up the reserve of descriptors;
    `spawn` and `look_after` take a reserve again.
    """

    def __init__(
        self,
        runtime: RuntimeDir,
        command: Sequence[str],
        spares: SparePool | None = None,
        running: "Mapping[WorkerName, TakeOver] | None" = None,
    ) -> None:
        """`running` are processes that another front has started, each the first of its place."""
        self._running = dict(running or {})
        self._spares = spares
        self._runtime = runtime
        self._command = command
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._oom = OomCounter()
        self._logs: dict[WorkerName, WorkerLog] = {}
        self._reserve = Reserve()

    def open_link(
        self, epoch: Epoch, token: str, *, on_message: MessageListener, on_broken: BrokenListener
    ) -> WorkerLink:
        """A ROUTER on a fresh path. `zmq.ZMQError` is an `OSError` in all but name."""
        self._reserve.release()
        self._runtime.restore()
        path = self._runtime.new_socket()
        try:
            return WorkerLink(
                self._context, path, epoch, token, on_message=on_message, on_broken=on_broken
            )
        except zmq.ZMQError as err:
            raise OSError(err.errno, f"cannot bind {path}: {err}") from err

    def spawn(self, worker: WorkerName, on_exit: ExitListener, on_ending: ExitListener) -> Process:
        """A process in its own group that writes to the worker's log: the spare, or a new one."""
        try:
            return self._spawn(worker, on_exit, on_ending)
        finally:
            self._reserve.refill()

    def _spawn(self, worker: WorkerName, on_exit: ExitListener, on_ending: ExitListener) -> Process:
        log = self._runtime.worker_log(worker)
        self._oom.mark()
        take_over = self._running.pop(worker, None)
        mark = self._log(worker).open()

        seen: list[ExitReason] = []  # a count of the kernel's explains one death, once

        def reason_of(si_code: int, si_status: int) -> ExitReason:
            if not seen:
                oom = si_status == Signals.SIGKILL and self._oom.claim()
                reason = classify(si_code, si_status, at=time.time(), oom=oom)
                if si_status == Signals.SIGABRT:
                    detail = device_memory(self.log_since(worker, mark))
                    reason = structs.replace(reason, detail=detail)
                seen.append(reason)
            return seen[0]

        def ended(si_code: int, si_status: int) -> None:
            on_exit(reason_of(si_code, si_status))

        process: EndingProcess
        if take_over is not None:
            process = take_over(log, ended)
        else:
            spare = self._spares.take(log, ended) if self._spares else None
            process = spare or WorkerProcess(self._command, log, ended)
        process.on_ending = lambda code, status: on_ending(reason_of(code, status))
        return process

    def log_mark(self, worker: WorkerName) -> int:
        return self._log(worker).size()

    def log_since(self, worker: WorkerName, mark: int) -> bytes:
        """Blocks while it reads 64 KiB from the page cache."""
        return self._log(worker).since(mark, MAX_LOG_BYTES)

    def _log(self, worker: WorkerName) -> WorkerLog:
        if worker not in self._logs:
            self._logs[worker] = WorkerLog(self._runtime.worker_log(worker))
        return self._logs[worker]

    def look_after(self) -> None:
        """Make vanished folders anew and refill the reserve. To be called every few seconds."""
        self._reserve.refill()
        self._runtime.restore()

    def close(self) -> None:
        """After all links have been closed. May be called again."""
        self._reserve.release()
        for log in self._logs.values():
            log.close()
        if not self._context.closed:
            self._context.term()
