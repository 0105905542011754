"""The fault matrix: every fault at every moment, streamed and not, on the scripted engine.

A cell passes only if the fault hit (a later epoch served; for a pause none) and every stream of it
has a history without a fault.
"""

import collections
import functools
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import aiohttp
from msgspec import Struct, field

from tests.chaos import lanes, memory_limit, moments
from tests.chaos.cell import IDLE_S, Cell, Play
from tests.chaos.faults import ALL, Fault
from tests.chaos.footprint import at_rest, growth
from tests.chaos.modelled import Modelled
from tests.chaos.moments import NOT_COVERED, Moment
from tests.chaos.plan import Setup, World
from tests.chaos.report import Report, reporting, say
from tests.chaos.rig import (
    Missed,
    Rig,
    rig,
    stop_and_look,
    wrong_counters,
)
from tests.chaos.scripted import Scripted

CELLS_OF_A_SERVICE = 16
TRIES = 8
"""A signal from outside may come too late: that is a miss, not a pass, and is tried again."""
SPARE_DESCRIPTORS = 12


class Result(Struct, frozen=True):
    """The outcome of a cell. `missed` has a reason for each try before the one that counts."""

    cell: Cell
    wrong: list[str]
    missed: list[str]


class Part(Struct, frozen=True):
    """Cells of one setup, on one service of this model or of the scripted engine."""

    model: Path | None
    cells: list[Cell]


class Played(lanes.Tally):
    """The results of cells. `wrong` are the leftovers of their services."""

    results: list[Result] = field(default_factory=list)


def cells(
    faults: Iterable[Fault] = ALL,
    *,
    hangs: bool = True,
    others: bool = True,
    containing: str = "",
) -> list[Cell]:
    """The cells that this machine can bring about, all or some."""
    can_limit = memory_limit.available()
    return [
        cell
        for fault in faults
        for moment in Moment
        for streamed in (True, False)
        if moments.exists(fault, moment)
        and (hangs if fault.hangs else others)
        and (can_limit or not fault.limited)
        and containing in (cell := Cell(fault, moment, streamed)).name
    ]


async def run(model: Path | None, wanted: list[Cell], n_lanes: int) -> Report:
    """Every wanted cell: each fault must hit, and its streams go on. Without a model, on the
    scripted engine."""
    report = reporting(f"fault matrix, {len(wanted)} cells, {n_lanes} services at once")
    started = time.monotonic()
    results, leftovers = await play(model, wanted, n_lanes)
    bad = [result for result in results if result.wrong]
    report.row("cells passed", f"{len(results) - len(bad)} of {len(wanted)}")
    report.row("signals that missed their moment", sum(len(result.missed) for result in results))
    report.row("duration", f"{time.monotonic() - started:.0f} s")
    for moment, passed in _by_moment(results).items():
        report.row(moment, passed)
    if not memory_limit.available():
        report.row("not covered", "out of memory: this machine lets no cgroup be made")
    for line in NOT_COVERED:
        report.row("not covered", line)
    for result in results:
        for line in result.missed:
            say(f"  missed: {result.cell.name}: {line}")
    report.wrong += [f"{each.cell.name}: {line}" for each in bad for line in each.wrong[:4]]
    report.wrong += [f"left behind: {line}" for line in leftovers]
    if not wanted:
        report.wrong.append("no cell has such a name")
    if len(results) != len(wanted):
        report.wrong.append(f"only {len(results)} cells were played")
    return report


async def play(
    model: Path | None, wanted: list[Cell], n_lanes: int
) -> tuple[list[Result], list[str]]:
    """Run cells; those of one setup share a service. Returns results and leftovers of services."""
    parts = [Part(model, batch) for batch in _batches(_world(model), wanted)]
    cores = lanes.together(n_lanes) if model is None else lanes.apart(n_lanes)
    total = Played()
    for played in await lanes.play(_play, parts, cores, _progress):
        total.add(played)
    return total.results, total.wrong


def _progress(played: Played) -> None:
    n_bad = sum(bool(result.wrong) for result in played.results)
    say(f"  {len(played.results)} cells, {n_bad} of them with violations")


@functools.cache
def _world(model: Path | None) -> World:
    """One for each process: a model's world learns its answers once."""
    return Scripted() if model is None else Modelled(model)


async def _play(part: Part) -> Played:
    played = Played()
    try:
        await _serve(_world(part.model), part.cells, played)
    except (AssertionError, Missed, OSError, aiohttp.ClientError) as err:
        left = part.cells[len(played.results) :]
        played.results += [Result(cell, [f"service: {err!r:.300}"], []) for cell in left]
    return played


def _batches(world: World, wanted: Iterable[Cell]) -> Iterator[list[Cell]]:
    by_setup: dict[Setup, list[Cell]] = collections.defaultdict(list)
    for cell in wanted:
        by_setup[world.setup(cell.fault, cell.moment)].append(cell)
    for setup, found in by_setup.items():
        size = 1 if setup.alone else CELLS_OF_A_SERVICE
        slow = sum(cell.fault.hangs or cell.fault.pauses for cell in found) > len(found) // 2
        size = min(size, 4) if slow else size
        for start in range(0, len(found), size):
            yield found[start : start + size]


async def _serve(world: World, batch: list[Cell], played: Played) -> None:
    """Play cells of one setup on a service of their own."""
    setup = world.setup(batch[0].fault, batch[0].moment)
    with tempfile.TemporaryDirectory(prefix="ch", dir="/tmp") as folder:
        marker = _made(Path(folder, "m"))
        environ, memory_bytes = setup.environ(marker), setup.memory_bytes
        async with rig(*setup.arguments, environ=environ, memory_bytes=memory_bytes) as one:
            await world.prepare(one)
            before, some_left = await at_rest(one.service), False
            for cell in batch:
                result = await _try(one, world, cell, marker, once=setup.alone)
                some_left |= bool(result.missed)
                played.results.append(result)
            if setup.alone:
                return
            figures = await one.until_idle(IDLE_S)
            if not any(cell.fault.unloadable for cell in batch):
                played.wrong += wrong_counters(figures, some_left=some_left)
            _, grown = await growth(one.service, before, SPARE_DESCRIPTORS)
            played.wrong += grown
            played.wrong += stop_and_look(one.service)


def _made(marker: Path) -> Path:
    marker.touch()
    return marker


async def _try(one: Rig, world: World, cell: Cell, marker: Path, *, once: bool) -> Result:
    """A cell until it has hit; its service cannot play it again with `once`."""
    missed: list[str] = []
    while True:
        try:
            wrong = await Play(one, world, cell, marker, n_misses=len(missed)).run()
        except Missed as err:
            missed.append(str(err))
            if not once and len(missed) < TRIES:
                continue
            wrong = [f"missed: {err}"]
        return Result(cell, wrong, missed)


def _by_moment(results: list[Result]) -> dict[str, str]:
    """For each moment, how many cells of each fault passed."""
    lines = {}
    for moment in Moment:
        found: dict[str, list[Result]] = collections.defaultdict(list)
        for result in results:
            if result.cell.moment is moment:
                found[result.cell.fault.name].append(result)
        shares = (
            f"{fault} {sum(not result.wrong for result in tried)}/{len(tried)}"
            for fault, tried in found.items()
        )
        if found:
            lines[str(moment)] = ", ".join(shares)
    return lines
