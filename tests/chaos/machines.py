"""Workers on two machines, of which one is struck again and again in each of the known ways."""

import asyncio
import itertools
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

from msgspec import Struct, field

from tests.chaos.history import History, check
from tests.chaos.load import Ask, ask_fake, ask_real, begin, clients, pursue
from tests.chaos.report import Report, reporting
from tests.machines import Cluster, cluster
from tests.service import wait_for

N_STREAMS, N_REAL_STREAMS = 20, 10
N_TOKENS = (100, 300)
MACHINES = ("a", "b")

WORKER, HOST, MACHINE, SILENT, LEAVES, DRAIN = STRIKES = (
    *("SIGKILL of the worker", "SIGKILL of the host", "SIGKILL of all of a machine's processes"),
    *("SIGSTOP of all of them (silence)", "SIGTERM of the host", "hosts drain"),
)


class Seen(Struct):
    """One kind of strike."""

    n: int = 0
    n_streams: int = 0
    verdicts_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Load(Struct, frozen=True):
    """The streams of one strike. `model` is a real one; None: the fake engine."""

    model: Path | None
    n_streams: int

    def ask(self, name: str, n_tokens: int) -> Ask:
        """A stream's request. A fake stream's whole text is known, a real one's length."""
        if self.model is None:
            return ask_fake(name, n_tokens)
        return ask_real(f"A story by {name}:", n_tokens, temperature=0.8, seed=n_tokens)


async def run(n_strikes: int, seed: int, model: Path | None = None) -> Report:
    """No stream breaks or changes, whatever happens to one of two machines."""
    load = Load(model, N_STREAMS if model is None else N_REAL_STREAMS)
    engine = "the fake engine" if model is None else model.name
    report = reporting(
        f"{n_strikes} strikes at one of two machines, {load.n_streams} streams each, {engine}"
    )
    seen = {name: Seen() for name in STRIKES}
    dice = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="cm", dir="/tmp"))
    making = cluster(folder, *MACHINES, model=model)
    try:
        one = await asyncio.to_thread(making.__enter__)
        try:
            for number in range(n_strikes):
                name = STRIKES[number % len(STRIKES)]
                machine = dice.choice(MACHINES)
                await _struck(one, load, name, machine, number, dice, seen[name])
        finally:
            await asyncio.to_thread(making.__exit__, None, None, None)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _tell(report, seen)
    return report


def _tell(report: Report, seen: dict[str, Seen]) -> None:
    for name, one in seen.items():
        if one.n:
            found = f"{len(one.wrong)} of {one.n_streams} wrong, gap {spread(one.gaps_s)}"
            report.row(f"{name} ({one.n} times)", f"{found}, verdict {spread(one.verdicts_s)}")
            report.wrong += [f"{name}: {item}" for item in one.wrong]
    n_streams, n_wrong = (
        sum(one.n_streams for one in seen.values()),
        sum(len(one.wrong) for one in seen.values()),
    )
    n_strikes = sum(one.n for one in seen.values())
    report.head(
        f"streams that went wrong under {n_strikes} strikes at one of two machines",
        f"{n_wrong} of {n_streams:,}",
    )


async def _struck(
    one: Cluster,
    load: Load,
    name: str,
    machine: str,
    number: int,
    dice: random.Random,
    seen: Seen,
) -> None:
    await asyncio.to_thread(_both_there, one)
    async with clients() as session:
        asks = [
            load.ask(f"strike {number} stream {n}", dice.randint(*N_TOKENS))
            for n in range(load.n_streams)
        ]
        histories = [begin(f"strike {number} stream {n}", ask) for n, ask in enumerate(asks)]
        url = one.front.url
        running = [
            asyncio.create_task(pursue(session, url, ask, history))
            for ask, history in zip(asks, histories, strict=True)
        ]
        await asyncio.to_thread(wait_for, lambda: _on(one, machine)["sequences_running"])
        epoch = _on(one, machine)["epoch"]
        at = time.monotonic()
        striking = asyncio.create_task(asyncio.to_thread(_strike, one, name, machine))
        await asyncio.to_thread(wait_for, lambda: not _serves(one, machine, epoch))
        seen.verdicts_s.append(time.monotonic() - at)
        await asyncio.gather(striking, *running)
    seen.n += 1
    seen.n_streams += load.n_streams
    seen.gaps_s.append(max(pause(history, at) for history in histories))
    for history in histories:
        seen.wrong += [f"{history.name}: {item}" for item in check(history)]


def _both_there(one: Cluster) -> None:
    """Bring back a machine that was struck, and trust it at once."""
    for name, host in list(one.hosts.items()):
        if host.process.poll() is None and one.rows()[name]["state"] == "lost":
            host.end()  # it is stopped
        if host.process.poll() is not None:
            one.come_back(name)
        wait_for(lambda name=name: one.rows()[name]["state"] not in {"lost", "away"})  # type: ignore[misc]
        list(one.front.control.drain_host(name, undo=True))
    one.wait_ready(*MACHINES)


def _strike(one: Cluster, name: str, machine: str) -> None:
    host = one.hosts[machine]
    match name:
        case _ if name == WORKER:
            os.kill(one.ready()[machine], signal.SIGKILL)
        case _ if name == HOST:
            host.process.kill()
        case _ if name == MACHINE:
            host.signal_all(signal.SIGKILL)
        case _ if name == SILENT:
            host.signal_all(signal.SIGSTOP)
        case _ if name == LEAVES:
            host.process.terminate()
        case _:
            list(one.front.control.drain_host(machine, undo=False))


def _on(one: Cluster, machine: str) -> dict[str, int]:
    return next(row for row in one.workers() if row["machine"] == machine)


def _serves(one: Cluster, machine: str, epoch: int) -> bool:
    return any(
        row["epoch"] == epoch and row["machine"] == machine and row["state"] == "ready"
        for row in one.workers()
    )


def pause(history: History, struck_at: float) -> float:
    """The longest time between two events of a stream that ended after the strike."""
    times = [event.at for event in history.events]
    pairs = itertools.pairwise(times)
    return max((b - a for a, b in pairs if b >= struck_at), default=0.0)


def spread(found: list[float]) -> str:
    if not found:
        return "none"
    return f"{sorted(found)[len(found) // 2]:.2f} s (most {max(found):.2f})"
