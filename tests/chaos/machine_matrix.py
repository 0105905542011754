"""Each way in which a machine, its cable or its front can fail, with streams in the middle.

Three machines in namespaces (`tests/namespaces.py`), a worker of the fake engine on each. A row
strikes the first machine. No stream may break or change, whatever happens.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from msgspec import Struct, field

from tests.chaos.history import check
from tests.chaos.load import ask_fake, begin, clients, pursue
from tests.chaos.machines import pause
from tests.chaos.report import Report, reporting
from tests.machines import cluster
from tests.namespaces import Space, SpaceHost, lacking, space
from tests.service import wait_for

MACHINES = ("a", "b", "c")
STRUCK = "a"
N_STREAMS = 12
N_TOKENS = 400
WAIT_S = 120.0
HALF_S = 2.0
"""A partition that is shorter than the limit, 5 s."""

STOPPED_S = 6.0
"""A front that does not look for longer than the limit."""


class Row(Struct, frozen=True):
    """One way to fail. `reason` is the worker's end as the front has to name it; empty: none.

    `keeps` says that the same process serves afterwards, without a load. `settles` undoes the
    failure while streams run.
    """

    name: str
    strike: Callable[[Space], None]
    reason: str = ""
    keeps: bool = False
    settles: Callable[[Space], None] = lambda one: None
    n_tokens: int = N_TOKENS


class Seen(Struct):
    """What a row has shown."""

    wrong: list[str] = field(default_factory=list)
    verdict_s: float | None = None
    gap_s: float = 0.0


def _host(one: Space) -> SpaceHost:
    return one.host(STRUCK)


def _worker(one: Space) -> int:
    return _host(one).pid_of(one.running.ready()[STRUCK])


def _row(one: Space, name: str = STRUCK) -> dict[str, object]:
    return one.running.rows()[name]


def _is_lost(one: Space) -> None:
    wait_for(lambda: _row(one)["state"] == "lost", WAIT_S, "the machine is lost")


def _switch_off(one: Space) -> None:
    one.cables[STRUCK].cut()
    _host(one).signal_all(signal.SIGKILL)


def _cut_for_long(one: Space) -> None:
    one.cables[STRUCK].cut()
    _is_lost(one)
    one.cables[STRUCK].heal()


def _lose_to_front(one: Space) -> None:
    one.cables[STRUCK].lose_to_front()
    _is_lost(one)
    one.cables[STRUCK].heal()


def _lose_to_machine(one: Space) -> None:
    one.cables[STRUCK].lose_to_machine()
    _is_lost(one)
    one.cables[STRUCK].heal()


def _cut_for_a_moment(one: Space) -> None:
    one.cables[STRUCK].cut()

    def is_silent() -> bool:
        heard_at = _row(one)["heard_at"]
        return isinstance(heard_at, float) and time.time() - heard_at > HALF_S

    wait_for(is_silent, WAIT_S, "it is silent")
    one.cables[STRUCK].heal()


def _slow_down(one: Space) -> None:
    threading.Thread(target=_throttle, args=(_worker(one), 200)).start()


def _throttle(pid: int, n_turns: int) -> None:
    """A worker gets a tenth of the time."""
    with contextlib.suppress(ProcessLookupError):
        for _ in range(n_turns):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.09)
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.01)


def _front(one: Space) -> psutil.Process:
    return psutil.Process(one.running.front.status()["front"]["pid"])


def _stop_front(one: Space) -> None:
    front = _front(one)
    front.suspend()
    time.sleep(STOPPED_S)
    front.resume()


def _all_gone(one: Space) -> None:
    for name in MACHINES:
        one.host(name).signal_all(signal.SIGKILL)
    wait_for(lambda: not one.running.ready(), WAIT_S, "no worker is left")


def _all_back(one: Space) -> None:
    for name in MACHINES:
        one.host(name).end()
        one.come_back(name)


ROWS = (
    Row(
        "the worker dies (SIGKILL)",
        lambda one: os.kill(_worker(one), signal.SIGKILL),
        "killed",
    ),
    Row(
        "the worker hangs (SIGSTOP)",
        lambda one: os.kill(_worker(one), signal.SIGSTOP),
        "hung",
    ),
    Row("the worker host dies (SIGKILL)", lambda one: _host(one).main.kill(), "host_lost"),
    Row("power off: cable cut, all processes killed", _switch_off, "node_lost"),
    Row(
        "reboot: all processes killed, connections closed",
        lambda one: _host(one).signal_all(signal.SIGKILL),
        "host_lost",
    ),
    Row("partition, heals once it was noticed", _cut_for_long, "node_lost", keeps=True),
    Row("partition, heals after 2 s", _cut_for_a_moment, keeps=True),
    Row("packets to the front are lost", _lose_to_front, "node_lost"),
    Row("packets to the machine are lost", _lose_to_machine, "lost"),
    Row("a slow machine: a tenth of the time", _slow_down, keeps=True, n_tokens=150),
    Row("a front that does not look for 6 s", _stop_front, keeps=True),
    Row("SIGTERM to the host", lambda one: _host(one).main.terminate(), "restarted"),
    Row(
        "the front is upgraded",
        lambda one: _drain_events(one.running.front.control.upgrade()),
        keeps=True,
    ),
    Row("all machines die, and come back", _all_gone, "host_lost", settles=_all_back),
)


def _drain_events(events: Iterator[object]) -> None:
    for _ in events:
        pass


@contextlib.contextmanager
def three_machines(folder: Path) -> Iterator[Space]:
    """A front in this namespace, and three machines with a ready worker each."""
    with (
        cluster(folder, replicas=len(MACHINES), listen="0.0.0.0") as running,
        space(running, *MACHINES) as made,
    ):
        running.wait_ready(*MACHINES)
        yield made


def settle(one: Space) -> dict[str, int]:
    """Bring all machines back, trusted. Machine → pid of its worker there."""
    for name, cable in one.cables.items():
        cable.heal()
        host = one.host(name)
        if not _lives(host):
            host.end()
            one.come_back(name)
    for name in MACHINES:
        wait_for(
            lambda name=name: _row(one, name)["state"] not in {"lost", "away"},  # type: ignore[misc]
            WAIT_S,
            f"{name} is there",
        )
        _drain_events(one.running.front.control.drain_host(name, undo=True))
    return one.running.wait_ready(*MACHINES)


def _lives(host: SpaceHost) -> bool:
    try:
        return host.process.poll() is None and host.main.status() != psutil.STATUS_STOPPED
    except (psutil.NoSuchProcess, IndexError):
        return False


async def run_row(one: Space, row: Row) -> Seen:
    """Strike, and judge every stream."""
    seen, before = Seen(), await asyncio.to_thread(settle, one)
    async with clients() as session:
        asks = [ask_fake(f"{row.name} {n}", row.n_tokens) for n in range(N_STREAMS)]
        histories = [begin(f"{row.name}, stream {n}", ask) for n, ask in enumerate(asks)]
        url = one.running.front.url
        streams = [
            asyncio.create_task(pursue(session, url, ask, history))
            for ask, history in zip(asks, histories, strict=True)
        ]
        await asyncio.to_thread(wait_for, lambda: _of(one)["sequences_running"], WAIT_S)
        epoch, at = _of(one)["epoch"], time.monotonic()
        striking = asyncio.create_task(asyncio.to_thread(row.strike, one))
        if row.reason:
            await asyncio.to_thread(wait_for, lambda: not _serves(one, epoch), WAIT_S, row.name)
            seen.verdict_s = time.monotonic() - at
        await striking
        if row.reason:
            seen.wrong += await asyncio.to_thread(_misnamed, one, row)
        await asyncio.to_thread(row.settles, one)
        await asyncio.gather(*streams)
    seen.gap_s = max(pause(history, at) for history in histories)
    for history in histories:
        seen.wrong += [f"{history.name}: {item}" for item in check(history)]
    if row.keeps and (after := await asyncio.to_thread(settle, one)) != before:
        seen.wrong.append(f"{row.name}: workers were loaded anew: {before}, then {after}")
    return seen


def _of(one: Space) -> dict[str, int]:
    return next(row for row in one.running.workers() if row["machine"] == STRUCK)


def _serves(one: Space, epoch: int) -> bool:
    return any(
        row["epoch"] == epoch and row["machine"] == STRUCK and row["state"] == "ready"
        for row in one.running.workers()
    )


def _misnamed(one: Space, row: Row) -> list[str]:
    """Wait for the end's name. It is known once the process has ended, after the verdict."""

    def ends() -> list[str]:
        return [one["last_exit"]["reason"] for one in rows() if one["last_exit"]]

    rows = one.running.workers
    try:
        wait_for(lambda: any(row.reason in end for end in ends()), WAIT_S / 2)
    except AssertionError:
        return [f"{row.name}: the front says {ends()}, not {row.reason}"]
    return []


def after_a_killed_front(one: Space) -> list[str]:
    """The front is killed and started again beside an idle machine: no worker may be loaded anew.

    The last row: its front ends with it."""
    before = settle(one)
    one.join("idle")
    wait_for(lambda: "idle" in one.running.rows(), WAIT_S, "another machine is there")
    with one.running.another_front():
        after = settle(one)
    return [] if after == before else [f"workers were loaded anew: {before}, then {after}"]


async def run(containing: str) -> Report:
    """Every row whose name contains a text."""
    report = reporting(f"the failure matrix: 3 machines in namespaces, {N_STREAMS} streams a row")
    if (reason := lacking()) is not None:
        report.row("rows that were not run", f"{len(ROWS) + 1}: {reason}")
        report.wrong.append(reason)
        return report
    folder = Path(tempfile.mkdtemp(prefix="cx", dir="/tmp"))
    making = three_machines(folder)
    try:
        one = await asyncio.to_thread(making.__enter__)
        try:
            for row in ROWS:
                if containing in row.name:
                    seen = await run_row(one, row)
                    verdict = "-" if seen.verdict_s is None else f"{seen.verdict_s:.2f} s"
                    found = f"{len(seen.wrong)} wrong, verdict {verdict}, gap {seen.gap_s:.2f} s"
                    report.row(row.name, found)
                    report.wrong += seen.wrong
            if containing in "the front is killed":
                wrong = await asyncio.to_thread(after_a_killed_front, one)
                report.row("the front is killed", f"{len(wrong)} wrong: no worker is loaded anew")
                report.wrong += wrong
        finally:
            await asyncio.to_thread(making.__exit__, None, None, None)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report
