"""One plugin's process, seen from the front: calls with a time limit, an end, another start.

A plugin that hangs, floods or dies is killed and started again, with growing waits while it does
not answer. The call that it had begun fails; the chain decides what a failure means. The calls
behind that one had not begun: the next process gets them.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from gpufc.config import PluginConfig
from supervisor.plugins import messages as m
from supervisor.plugins.link import Link

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-P", "-m", "supervisor.plugins.host")

LOAD_S = 30.0
"""For the interpreter and the plugin's imports."""

MOST_OPEN = 512
"""Calls that wait for a plugin at once. Beyond it the plugin counts as failed."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 30.0

RESTART_S = 10.0
"""Calls wait so long for a process that is started again, if one of the last two has answered."""


class PluginFailed(Exception):
    """A plugin did not give a usable answer."""


class PluginRefused(Exception):
    """A plugin refuses the request. The text is for the client."""


class Counts(Struct):
    """A plugin's figures in `/stats`. `dropped` are notifications that had no room."""

    calls: int = 0
    failures: int = 0
    timeouts: int = 0
    refusals: int = 0
    dropped: int = 0
    restarts: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0


class _Open:
    """A call that has no answer yet. `future` is None for a notification."""

    __slots__ = ("future", "message", "no", "since")

    def __init__(self, no: int, message: bytes, future: "asyncio.Future[Any] | None") -> None:
        self.no, self.message, self.future = no, message, future
        self.since = time.monotonic()

    @property
    def is_wanted(self) -> bool:
        return self.future is None or not self.future.done()


class PluginProcess:
    """In the event loop. Invariant: `_open` has the calls in the order in which the process answers
    them. The time limit is that of the first one, since it became the first; while no process is
    ready, it is that for the next one to become so."""

    def __init__(
        self,
        config: PluginConfig,
        logs: Path,
        *,
        offline: bool = False,
        may_quote: Callable[[], bool] = lambda: False,
    ) -> None:
        """`may_quote`: whether the log may have texts of requests, such as in an exception's."""
        self.config = config
        self.name = config.shown
        self.counts = Counts()
        self.hooks: frozenset[str] = frozenset()
        self.detail = ""
        """Why it is not ready."""
        self._log = logs / f"plugin-{self.name}.log"
        self._offline = offline
        self._may_quote = may_quote
        self._ready = asyncio.Event()
        self._open: deque[_Open] = deque()
        self._next = 0
        self._n_answered = 0
        self._n_mute = 0
        """Processes in a row that have ended without an answer."""
        self._link: Link | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._life: asyncio.Task[None] | None = None

    @property
    def is_ready(self) -> bool:
        return self._ready.is_set()

    async def start(self) -> None:
        """Start it. Returns when it is loaded. Raises `PluginFailed` if it cannot be."""
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(self._live(first))
        await first

    async def stop(self) -> None:
        """End it. Open calls fail."""
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
            self._fail_open("it has ended")

    async def call(self, hook: str, **arguments: Any) -> Any:
        """A hook's result as plain data. Raises `PluginFailed` or `PluginRefused`."""
        self._require_room()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._send(hook, arguments, future)
        return await future

    def notify(self, hook: str, **arguments: Any) -> None:
        """Run a hook that nothing waits for, if there is room."""
        if self._lives and len(self._open) < MOST_OPEN:
            self._send(hook, arguments, None)
        else:
            self.counts.dropped += 1

    @property
    def _lives(self) -> bool:
        """Whether there is a process, or another one will be started."""
        return self._life is not None and not self._life.done()

    def _require_room(self) -> None:
        if not self._lives:
            raise PluginFailed("it has ended")
        if len(self._open) >= MOST_OPEN:
            self.counts.failures += 1
            raise PluginFailed("too many calls wait for it")

    def _send(self, hook: str, arguments: Any, future: "asyncio.Future[Any] | None") -> None:
        """To the process, or to the next one."""
        self._next += 1
        self.counts.calls += 1
        message = m.encode(m.Call(self._next, hook, msgspec.to_builtins(arguments)))
        self._open.append(_Open(self._next, message, future))
        if len(self._open) == 1:
            self._watch()
        if self.is_ready and self._link is not None:
            self._link.write(message)

    # the process

    async def _live(self, first: "asyncio.Future[None]") -> None:
        """Start it again and again, until the task is cancelled."""
        while True:
            n_before = self._n_answered
            await self._live_once(first)
            if not first.done():
                first.set_exception(PluginFailed(self.detail))
                return
            self._n_mute = 0 if self._n_answered > n_before else self._n_mute + 1
            self.counts.restarts += 1
            logger.warning("plugin_ended plugin=%s detail=%s", self.name, self.detail)
            wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self._n_mute, 10))
            self._watch(anew=True)
            await asyncio.sleep(wait_s)

    async def _live_once(self, first: "asyncio.Future[None]") -> None:
        """One process, from its start to its full end."""
        try:
            popen, ours = self._spawn()
        except OSError as err:
            self.detail = str(err)
            return
        copy = ours.dup()
        try:
            loop = asyncio.get_running_loop()
            _, link = await loop.create_unix_connection(lambda: Link(self._heard), sock=ours)
            self._link = link
            self._send_options(link)
            async with asyncio.timeout(LOAD_S):
                await asyncio.wait(
                    (asyncio.ensure_future(self._ready.wait()), link.ended),
                    return_when=asyncio.FIRST_COMPLETED,
                )
            if self.is_ready and not first.done():
                first.set_result(None)
            await link.ended
            link.read_rest(copy)
        except TimeoutError:
            self.detail = f"it did not load within {LOAD_S:.0f} s"
        finally:
            copy.close()
            self.detail = self.detail or "it has ended"
            if self.is_ready:
                self._ready.clear()
                self._fail_begun(self.detail)
            if self._link is not None:
                self._link.abort()
                self._link = None
            self._kill(popen)
            await asyncio.shield(asyncio.to_thread(popen.wait))

    def _spawn(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair()
        log = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            popen = subprocess.Popen(
                [
                    *COMMAND,
                    *("--fd", str(theirs.fileno()), "--parent", str(os.getpid())),
                    *("--use", self.config.use),
                    *(("--offline",) if self._offline else ()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                process_group=0,
                env=_environment(),
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(log)
        return popen, ours

    def _kill(self, popen: subprocess.Popen[bytes]) -> None:
        """End the process, and those that it has started and left in its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)

    def _send_options(self, link: Link) -> None:
        """Not as arguments, which every user of the machine can read: they may be secrets."""
        link.write(json.dumps(self.config.options).encode())

    # answers

    def _heard(self, message: m.FromPlugin) -> None:
        match message:
            case m.Ready(hooks):
                self.hooks, self.detail = frozenset(hooks), ""
                self._ready.set()
                self._send_again()
            case m.Unloadable(reason):
                self._end(reason)
            case m.Returned(no, value):
                future = self._answered(no)
                if future is not None:
                    future.set_result(value)
            case m.Refused(no, reason):
                self.counts.refusals += 1
                future = self._answered(no)
                if future is not None:
                    future.set_exception(PluginRefused(reason))
            case m.Raised(no, places, text):
                self.counts.failures += 1
                if text:
                    text = text if self._may_quote() else "(its text is logged with log_prompts)"
                logger.warning("plugin_raised plugin=%s\n%s: %s", self.name, places, text)
                future = self._answered(no)
                if future is not None:
                    future.set_exception(PluginFailed("it raised an exception"))

    def _answered(self, no: int) -> "asyncio.Future[Any] | None":
        """The future that waits for an answer, if one still does."""
        if not self._open or self._open[0].no != no:
            self._end("it answered a call that it did not have")
            return None
        done = self._open.popleft()
        self._n_answered += 1
        taken = time.monotonic() - done.since
        self.counts.seconds += taken
        self.counts.slowest_s = max(self.counts.slowest_s, taken)
        if self._open:
            self._open[0].since = time.monotonic()
        self._watch()
        return done.future if done.future is not None and not done.future.done() else None

    @property
    def _limit_s(self) -> float:
        """The time limit of the first open call: for its answer, or for a process to begin it."""
        is_coming = not self.is_ready and self._n_mute < 2
        return max(self.config.timeout_s, RESTART_S) if is_coming else self.config.timeout_s

    def _watch(self, *, anew: bool = False) -> None:
        """Keep one timer while calls are open. It is moved only when it is due, or made `anew`."""
        if anew and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._timer is None and self._open:
            due_s = self._open[0].since + self._limit_s - time.monotonic()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, due_s), self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._open or time.monotonic() - self._open[0].since < self._limit_s:
            self._watch()
        elif self.is_ready:
            self.counts.timeouts += 1
            self._end(f"it took more than {self.config.timeout_s:g} s")
        else:
            self._fail_open(self.detail or "it is starting")

    def _end(self, detail: str) -> None:
        """Give the process up."""
        self.detail = detail
        if self._link is not None:
            self._link.abort()

    def _fail_begun(self, detail: str) -> None:
        """A process has ended: fail the call that it had begun. The others wait for the next."""
        if self._open:
            self._fail(self._open.popleft(), detail)
        self._begin_again()

    def _send_again(self) -> None:
        """Give a new process what the one before had not begun."""
        self._begin_again()
        for one in self._open:
            if self._link is not None:
                self._link.write(one.message)

    def _begin_again(self) -> None:
        """The first open call's time begins now. Drop the calls that nothing waits for any more."""
        self._open = deque(one for one in self._open if one.is_wanted)
        if self._open:
            self._open[0].since = time.monotonic()
        self._watch(anew=True)

    def _fail_open(self, detail: str) -> None:
        while self._open:
            self._fail(self._open.popleft(), detail)

    def _fail(self, one: _Open, detail: str) -> None:
        self.counts.failures += 1
        if one.future is not None and not one.future.done():
            one.future.set_exception(PluginFailed(detail))


def _environment() -> dict[str, str]:
    """The front's environment without its own settings, which may be secrets."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GPUFC_")}


def started(processes: Sequence[PluginProcess]) -> "asyncio.Future[list[BaseException | None]]":
    """Start all of them at once; each one's error, or None."""
    return asyncio.gather(*(one.start() for one in processes), return_exceptions=True)
