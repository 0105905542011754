"""Serves in the foreground: the event loop, signals and messages to the terminal."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gpufc import logs
from gpufc.config import Config, ServerConfig, Standby
from gpufc.errors import ConfigError, StartError
from gpufc.settings import Value
from gpufc.uncollected import uncollected
from supervisor import descriptors, front_process
from supervisor.cli.preflight import asked_contexts
from supervisor.cli.stop import left
from supervisor.cli.terminal import Progress
from supervisor.cli.welcome import show_loading, welcome
from supervisor.log_rotation import FRONT_LOG, LogFile
from supervisor.outlet import Outlet, OutletHandler, Terminal
from supervisor.runtime_dir import RuntimeDir

if TYPE_CHECKING:
    from supervisor.fleet.standby import Spare
    from supervisor.reload import Origins

POLL_S = 0.1
LAST_LINES_S = 1.0
"""How long the end of the process waits for its last lines to be written."""


class ServedFront(Protocol):
    """A running front, as the terminal sees it."""

    async def wait_ready(self) -> None:
        """Wait until the model is loaded or a stop is requested. Raises `GpufcError` for a failed
        load."""
        ...

    async def wait_stop(self) -> bool:
        """Wait for a stop request, then until running requests ended or their time is over."""
        ...

    def request_stop(self, now: bool = False) -> None:
        """Begin to drain, or end at once."""
        ...

    def reload_soon(self, why: str) -> None:
        """Read the configuration again."""
        ...

    def status(self) -> Any:
        """The status document of the control socket."""
        ...


def serve(config: Config, values: Sequence[Value], origins: "Origins") -> None:
    """Serve until a stop is requested. Raises `ConfigError` or `StartError`."""
    import uvloop

    front_process.confine()
    terminal = Terminal()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            successor = runner.run(_serve(config, values, origins, terminal))
        if successor is None:
            terminal.say("stopped", err=True)
        else:
            line = f"a new front has taken over: pid {successor}, in the background"
            terminal.say(line, err=True)
    finally:
        terminal.outlet.close(LAST_LINES_S)


async def _serve(
    config: Config, values: Sequence[Value], origins: "Origins", terminal: Terminal
) -> int | None:
    """Serve. Returns the pid of the front that has taken over, if one has."""
    descriptors.raise_limit()
    spare = _early_spare(config)  # the worker imports at the same time as the front
    front_process.start_threads()
    with uncollected():
        from supervisor import systemd
        from supervisor.app import Front
        from supervisor.cli.commanded import commanded
        from supervisor.devices.monitor import default_monitor

    folder = RuntimeDir.find(config.server.runtime_dir)
    monitor = default_monitor(str(folder.path))
    front = Front(config, values=values, origins=origins, devices=monitor, spare=spare)
    log = log_to(folder.logs, config.server, terminal)
    monitor.start()
    try:
        async with front, commanded(front):
            # the front answers from now on; /readyz tells how far the model is
            systemd.notify("READY=1")
            try:
                await Foreground(front, config, folder, terminal).attend()
            finally:
                if front.operations.successor is None:
                    systemd.notify("STOPPING=1")
    finally:
        monitor.stop()
        log.close(LAST_LINES_S)
    return front.operations.successor


def _early_spare(config: Config) -> "Spare | None":
    """Spawn the process of the first worker. It ends with this process in every case."""
    if config.fleet.standby is Standby.NONE:
        return None
    from supervisor.fleet.process import WORKER_COMMAND
    from supervisor.fleet.standby import Spare, spare_backend

    logs = RuntimeDir.find(config.server.runtime_dir).logs
    with contextlib.suppress(OSError):  # the fleet spawns its worker later if this fails
        return Spare(WORKER_COMMAND, logs, spare_backend(config))
    return None


class Foreground:
    """Informs the terminal. Owns the signal handlers; the front owns its own tasks."""

    def __init__(
        self, front: ServedFront, config: Config, folder: RuntimeDir, terminal: Terminal
    ) -> None:
        self._front = front
        self._asked = asked_contexts(config)
        self._drain_s = config.server.shutdown_timeout_s
        self._folder = folder
        self._terminal = terminal
        self._stopping = asyncio.Event()

    async def attend(self) -> None:
        """Show progress until ready, then the welcome, then the drain after a stop request.

        Raises the errors of `wait_ready`. Runs in the main thread's loop.
        """
        front_process.attend_signals(
            self._on_signal, lambda: self._front.reload_soon("SIGHUP was received")
        )
        ready = asyncio.ensure_future(self._front.wait_ready())
        try:
            await self._watch(ready, "loading the model", self._loading)
        except (ConfigError, StartError) as err:
            raise type(err)(self._reason() or str(err)) from err
        if not self._stopping.is_set():
            for line in welcome(self._document(), self._asked, self._folder):
                self._terminal.say(line)
            self._terminal.say("Ctrl-C stops it.")
        ended = asyncio.ensure_future(self._front.wait_stop())
        signalled = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((ended, signalled), return_when=asyncio.FIRST_COMPLETED)
        signalled.cancel()
        await self._watch(ended, "stopping", self._draining)

    def _on_signal(self, number: signal.Signals, now: bool) -> None:
        if not self._stopping.is_set():
            # the terminal shows ^C
            echoed = "\r\x1b[K" if self._terminal.err.isatty() else ""
            hint = "; Ctrl-C again: now" if number is signal.SIGINT else ""
            when = "now" if now else "when requests have ended"
            self._terminal.say(f"{echoed}stopping {when}{hint}", err=True)
        self._stopping.set()
        self._front.request_stop(now)

    async def _watch(
        self, work: "asyncio.Future[Any]", what: str, show: Callable[[Progress], None]
    ) -> None:
        """Show progress until `work` is done. Raises the work's exceptions."""
        progress = Progress(what, self._terminal.err)
        try:
            while not work.done():
                show(progress)
                await asyncio.wait((work,), timeout=POLL_S)
            await work
        finally:
            work.cancel()
            progress.end()

    def _loading(self, progress: Progress) -> None:
        show_loading(progress, self._document())

    def _draining(self, progress: Progress) -> None:
        requests = self._document()["requests"]
        running, waiting = requests["running"], requests["waiting"]
        progress.note(left(running, waiting), self._drain_s if running or waiting else None)

    def _reason(self) -> str | None:
        """The worker's own reason for a failed load."""
        exits = [row["last_exit"] for row in self._document()["workers"]]
        return next((last["detail"] for last in exits if last and last.get("detail")), None)

    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = msgspec.to_builtins(self._front.status())
        return document


def log_to(folder: Path, server: ServerConfig, terminal: Terminal) -> Outlet:
    """Write the front's log to its file, and warnings to the terminal too.

    Neither is waited for. Close the outlet at the end. Raises `OSError`.
    """
    outlet = Outlet()
    file = OutletHandler(outlet, LogFile(folder / FRONT_LOG).write)
    logs.handle(server.log_level, "front", file, server.log_format)
    warnings = OutletHandler(terminal.outlet, terminal.err.write_now)
    warnings.setLevel(logging.WARNING)
    clear = "\r\x1b[K" if terminal.err.isatty() else ""  # a progress bar may be on the line
    warnings.setFormatter(logs.LineFormatter(f"{clear}%(levelname)s: %(message)s"))
    logging.getLogger().addHandler(warnings)
    return outlet
