"""A service under test, with live figures, signals, and an end that shows its leftovers."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.chaos.load import clients
from tests.chaos.memory_limit import memory_limit
from tests.service import Service, limited, lives, service, wait_for

POLL_S = 0.002
READY_POLL_S = 0.02
"""Between looks for readiness. A worker that starts needs the processor that looks would take."""
SURVIVE_S = 2.0
PATIENCE_S = 180.0
"""With a worker that starts. It guards against a hang: on a machine with twenty times more work
than cores, a start takes more than a minute."""

Figures = dict[str, Any]


class Missed(Exception):
    """The moment for which a fault was meant did not come, or had passed."""


class Rig:
    """One running service, its clients' session and a view of its figures."""

    def __init__(
        self, running: Service, session: aiohttp.ClientSession, view: aiohttp.ClientSession
    ) -> None:
        self.service = running
        self.session = session
        self.url = running.url
        self._view = view
        self._once = 0

    async def figures(self) -> Figures:
        """The status document now, over the control socket, which answers in a drain too."""
        async with self._view.get("http://front/status") as response:
            found: Figures = await response.json()
            return found

    async def until(
        self,
        holds: Callable[[Figures], Any],
        why: str,
        timeout_s: float = 60.0,
        poll_s: float = POLL_S,
    ) -> Figures:
        """Figures for which the condition holds. Raises `Missed` if none come."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = await self.figures()
            if holds(found):
                return found
            if time.monotonic() > deadline:
                raise Missed(f"not within {timeout_s:.0f} s: {why}; {_seen(found)}")
            await asyncio.sleep(poll_s)

    async def until_ready(self, after: int = -1, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """The worker's row, once an epoch later than `after` serves."""
        found = await self.until(
            lambda now: is_ready(now) and worker(now)["epoch"] > after,
            "ready",
            timeout_s,
            READY_POLL_S,
        )
        return worker(found)

    async def until_idle(self, timeout_s: float = PATIENCE_S) -> Figures:
        """Nothing runs or waits, and a worker is ready."""
        return await self.until(
            lambda now: is_ready(now) and occupancy(now) == (0, 0),
            "idle and ready",
            timeout_s,
            READY_POLL_S,
        )

    def once(self) -> Path:
        """A name for a fault that shall be met once."""
        self._once += 1
        return self.service.runtime.path / f"o{self._once}"


@contextlib.asynccontextmanager
async def rig(
    *arguments: str,
    environ: dict[str, str],
    ready: bool = True,
    memory_bytes: int = 0,
    n_descriptors: int | None = None,
) -> AsyncIterator[Rig]:
    """A service in a folder of its own with a short name, which is removed at the end.

    `memory_bytes`: with a limit of its memory. Raises `OSError` where none can be set. Each
    process may hold `n_descriptors`.
    """
    folder = Path(tempfile.mkdtemp(prefix="ch", dir="/tmp"))
    limits = contextlib.ExitStack()
    try:
        cgroup = limits.enter_context(memory_limit(memory_bytes)) if memory_bytes else None
        making = service(
            folder / "r",
            *arguments,
            environ=environ,
            ready=ready,
            cgroup=cgroup,
            prefix=limited(n_descriptors) if n_descriptors else (),
        )
        running = await asyncio.to_thread(making.__enter__)
        try:
            # each look is a connection of its own: after an upgrade another front listens there
            connector = aiohttp.UnixConnector(str(running.runtime.control_socket), force_close=True)
            async with clients() as session, aiohttp.ClientSession(connector=connector) as view:
                yield Rig(running, session, view)
        finally:
            await asyncio.to_thread(making.__exit__, None, None, None)
    finally:
        await asyncio.to_thread(limits.close)
        shutil.rmtree(folder, ignore_errors=True)


def worker(figures: Figures) -> dict[str, Any]:
    """The only worker's row."""
    row: dict[str, Any] = figures["workers"][0]
    return row


def _seen(figures: Figures) -> str:
    """What a wait that has ended in vain saw last."""
    workers = ", ".join(f"{row['name']} {row['state']}" for row in figures["workers"])
    n_running, n_waiting = occupancy(figures)
    status = figures["front"]["condition"]["status"]
    return f"workers {workers}; {n_running} running, {n_waiting} waiting; front {status}"


def is_ready(figures: Figures) -> bool:
    return bool(worker(figures)["state"] == "ready")


def is_draining(figures: Figures) -> bool:
    """Whether the front is on its way out."""
    return bool(figures["front"]["condition"]["status"] == "draining")


def occupancy(figures: Figures) -> tuple[int, int]:
    """Sequences that run and that wait."""
    return figures["requests"]["running"], figures["requests"]["waiting"]


def generated(figures: Figures) -> int:
    """Tokens generated so far, each counted once."""
    return int(figures["tokens"]["generated_total"])


def send(pid: int, number: int) -> None:
    """A signal to a worker. Raises `Missed` where it is gone already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        raise Missed(f"process {pid} was gone") from None


def stop_and_look(running: Service) -> list[str]:
    """Stop the service with SIGTERM. Returns its leftovers."""
    children = running.front.children(recursive=True)
    running.process.send_signal(signal.SIGTERM)
    code = running.process.wait(40)
    found = [f"the front ended with {code}"] if code != 0 else []
    found += survivors(children)
    found += [f"{path.name} is left" for path in running.runtime.path.glob("*.sock")]
    return found


def survivors(children: list[psutil.Process]) -> list[str]:
    """The processes that outlive their front by more than a moment."""
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not any(map(lives, children)), SURVIVE_S)
    return [f"process {child.pid} lives" for child in children if lives(child)]


def wrong_counters(figures: Figures, *, some_left: bool = False) -> list[str]:
    """The front's own counters of failures. `some_left`: some clients did not wait."""
    requests = figures["requests"]
    names = ("lost_total", "failed_total") + (() if some_left else ("cancelled_total",))
    return [f"{name}={requests[name]}" for name in names if requests[name]]
