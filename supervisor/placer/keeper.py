"""The front's side of the placer: starts it, starts it again when it dies, and hears what it says.

Nothing in the front waits for it, and no stream depends on it.
"""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from supervisor.placer import messages
from supervisor.placer.messages import Join, JoinWanted, Order, Placed, Refusal

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-P", "-m", "supervisor.placer")
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
LONG_S = 60.0
"""A placer that has run for so long has not died at its start."""
ENDS_S = 3.0


class Keeper:
    """In the event loop. `start` begins, `stop` ends the placer and leaves the hosts running.

    `invite` makes the text of a join file for one host; it may raise `OSError`. `placed` is the
    last word of the placer, `refusal` why it does not start again.
    """

    def __init__(
        self,
        address: str,
        cell: str,
        order: Order,
        invite: Callable[[], str],
        log: Path,
        *,
        is_insecure: bool = False,
        command: tuple[str, ...] = COMMAND,
        first_wait_s: float = FIRST_WAIT_S,
    ) -> None:
        self._arguments = [address, f"--cell={cell}", *(["--insecure-ray"] if is_insecure else [])]
        self._command = command
        self._order = order
        self._invite = invite
        self._log = log
        self._first_wait_s = first_wait_s
        self._task: asyncio.Task[None] | None = None
        self._child: asyncio.subprocess.Process | None = None
        self.placed = Placed(())
        self.has_found = False
        """Whether the placer that runs has told which hosts run: those of a front before are among
        them. `placed` keeps the hosts that the placer before it has told until then."""
        self.refusal: str | None = None
        self.n_starts = 0
        self.on_fact: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Start the placer, and keep it running."""
        self._task = asyncio.create_task(self._keep(), name="placer")

    def want(self, n_hosts: int, resources: Mapping[str, float]) -> None:
        """Other hosts are wanted."""
        self._order = Order(n_hosts, dict(resources))
        self._send(self._order)

    @property
    def has_started(self) -> bool:
        """Whether `start` was called."""
        return self._task is not None

    @property
    def pid(self) -> int | None:
        """The placer's process, if it runs."""
        child = self._child
        return None if child is None or child.returncode is not None else child.pid

    async def stop(self) -> None:
        """End the placer. The hosts that it has placed go on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        wait_s = self._first_wait_s
        loop = asyncio.get_running_loop()
        while self.refusal is None:
            began = loop.time()
            try:
                code = await self._run()
            except OSError as err:
                logger.error("placer_unstartable: %s", err)
                code = -1
            if self.refusal is not None:
                break
            if loop.time() - began > LONG_S:
                wait_s = self._first_wait_s
            logger.warning("placer_ended code=%s again_in_s=%.0f log=%s", code, wait_s, self._log)
            await asyncio.sleep(wait_s)
            wait_s = min(LONGEST_WAIT_S, 2.0 * wait_s)

    async def _run(self) -> int:
        """One process, until its end. Its exit code."""
        with open(self._log, "ab") as log:  # noqa: ASYNC230 - a local file, once for a start
            child = self._child = await asyncio.create_subprocess_exec(
                *self._command,
                *self._arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
                limit=messages.MAX_LINE_BYTES,
            )
        self.n_starts += 1
        try:
            self._send(self._order)
            if child.stdout is not None:
                while line := await child.stdout.readline():
                    self._hear(line)
            return await child.wait()
        finally:
            await _ended(child)
            # the next one has to find the hosts anew, and may have no trouble
            self.has_found = False
            self.placed = Placed(self.placed.hosts)

    def _hear(self, line: bytes) -> None:
        try:
            fact = messages.fact_of(line)
        except msgspec.MsgspecError as err:
            logger.error("placer_garbage: %s", err)
            return
        match fact:
            case JoinWanted():
                self._answer()
            case Placed():
                # without hosts and with trouble it may not have reached Ray
                self.has_found |= bool(fact.hosts) or not fact.trouble
                hosts = fact.hosts if self.has_found else self.placed.hosts
                self.placed = Placed(hosts, fact.trouble)
                if fact.trouble:
                    logger.warning("hosts_missing: %s", fact.trouble)
            case Refusal(message):
                self.refusal = message
                logger.error("ray_refused: %s", message)
        self.on_fact()

    def _answer(self) -> None:
        try:
            text = self._invite()
        except OSError as err:  # the placer tries again
            logger.error("no_invitation: %s", err)
            return
        self._send(Join(text))

    def _send(self, message: messages.ToPlacer) -> None:
        child = self._child
        if child is not None and child.stdin is not None and not child.stdin.is_closing():
            child.stdin.write(messages.line(message))


async def _ended(child: asyncio.subprocess.Process) -> None:
    """Let it end, by the end of its input; then kill it."""
    if child.stdin is not None:
        child.stdin.close()
    if child.returncode is None:
        with contextlib.suppress(TimeoutError, ProcessLookupError):
            async with asyncio.timeout(ENDS_S):
                await child.wait()
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()
