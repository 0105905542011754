"""This machine, as the worker host uses it: runtime folder, logs, processes, memory kills."""

from collections.abc import Callable, Sequence
from pathlib import Path
from signal import Signals

import zmq

from gpufc.ids import WorkerName
from supervisor.cluster.messages import MAX_LOG_BYTES
from supervisor.fleet.oom import OomCounter
from supervisor.fleet.process import WORKER_COMMAND, WorkerProcess
from supervisor.fleet.worker_log import WorkerLog
from supervisor.runtime_dir import RuntimeDir

EndListener = Callable[[int, int, bool, bytes], None]
"""Called once, with `si_code`, `si_status`, whether the kernel counted a kill for lack of memory,
and the end of what the process wrote."""


EndingListener = Callable[[int, int, bool], None]
"""The same, without what it wrote, when the process begins to end."""


class Machine:
    """Processes are spawned in the main thread: a parent-death signal follows its thread."""

    def __init__(self, runtime: RuntimeDir, command: Sequence[str] = WORKER_COMMAND) -> None:
        """`runtime` must be held by this process."""
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._runtime = runtime
        self._command = command
        self._oom = OomCounter()
        self._logs: dict[WorkerName, WorkerLog] = {}

    def new_socket(self) -> Path:
        """A fresh path for a worker's link. Raises `OSError`."""
        self._runtime.restore()
        return self._runtime.new_socket()

    def spawn(
        self, worker: WorkerName, on_end: EndListener, on_ending: EndingListener
    ) -> WorkerProcess:
        """A process that waits for its boot message. `on_ending` may be called before `on_end`,
        from `watch_end` on. Raises `OSError`."""
        path = self._runtime.worker_log(worker)
        log = self._logs.setdefault(worker, WorkerLog(path))
        mark = log.open()
        self._oom.mark()

        seen: list[bool] = []  # a count of the kernel's explains one death, once

        def is_oom(si_status: int) -> bool:
            if not seen:
                seen.append(si_status == Signals.SIGKILL and self._oom.claim())
            return seen[0]

        def ended(si_code: int, si_status: int) -> None:
            on_end(si_code, si_status, is_oom(si_status), log.since(mark, MAX_LOG_BYTES))

        process = WorkerProcess(self._command, path, ended)
        process.on_ending = lambda code, status: on_ending(code, status, is_oom(status))
        return process

    def close(self) -> None:
        """After all links have been closed."""
        for log in self._logs.values():
            log.close()
        self.context.destroy(linger=0)  # a process that cannot be ended has its link still
