"""The table of architectures beside llama.cpp alone.

    python -m tests.models.table [--only NAME,…] [--without-engine | --without-services]
                                 [--results tests/models/RESULTS.md]
    python -m tests.models.table --windows MODEL.gguf [--in-32-bits] [--results …]

Each tiny model answers in both layouts of its cache. A cell has the number of tokens that are
llama.cpp's own. Where an answer parts, it has the lead of llama.cpp's token there and how far
llama.cpp alone moves that lead, as it computes the same tokens in passes of other sizes. Returns 1
if a cell is wrong.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from gpufc.config import KvUnified
from tests import machine, results
from tests.models.families import FAMILIES, UNCUT
from tests.models.making import made
from tests.models.runs import N_CTX, loaded
from tests.models.table.alone import Alone
from tests.models.table.engine_checks import EngineChecks
from tests.models.table.judging import Cell
from tests.models.table.service_checks import Swaps, killed
from tests.models.table.shares import shares
from tests.models.table.windows import REQUESTS, six_requests

LAYOUTS = {"one cache": KvUnified.TRUE, "streams": KvUnified.FALSE}
IN_ENGINE = {
    "greedy": EngineChecks.greedy,
    "eight at once": EngineChecks.eight,
    "after a finished one": EngineChecks.after_finished,
    "beside a running one": EngineChecks.beside_running,
    "preempted": EngineChecks.preempted,
    "preempted, exact": EngineChecks.exact,
    "in the next worker": EngineChecks.in_next_worker,
}
IN_SERVICE = ("killed, exact", "after swaps to and fro", "streams over these swaps")
SHARED = ("the same prompt again", "two other questions", "next turn")

Row = list[str]


class Table:
    """The rows so far. `n_wrong` counts the cells that are not as promised."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.n_wrong = 0

    def add(self, name: str, layout: str, cells: Sequence[Cell]) -> None:
        self.n_wrong += sum(not one.is_right for one in cells)
        self.rows.append([name, layout, *(one.text for one in cells)])
        print("|", " | ".join(self.rows[-1]), "|", flush=True)


def in_engine(name: str, layout: KvUnified, alone: Alone) -> list[Cell]:
    with loaded(name, layout) as backend:
        checks = EngineChecks(backend, alone)
        return [check(checks) for check in IN_ENGINE.values()]


async def in_services(
    names: Sequence[str], layout: KvUnified, alone_of: Callable[[str], Alone], folder: Path
) -> dict[str, list[Cell]]:
    kills = {name: await killed(folder / name, name, layout) for name in names}
    swapped = await Swaps(names, alone_of).run(folder / "swaps", layout)
    return {name: [kills[name], *swapped[name]] for name in names}


def architectures(names: Sequence[str], *, with_engine: bool, with_services: bool) -> Table:
    table = Table()
    with ExitStack() as opened, tempfile.TemporaryDirectory() as folder:

        @cache
        def alone_of(name: str) -> Alone:
            alone = Alone(made(name), N_CTX)
            opened.callback(alone.close)
            return alone

        for title, layout in LAYOUTS.items():
            served: dict[str, list[Cell]] = {}
            if with_services:
                place = Path(folder) / layout.value
                place.mkdir()
                served = asyncio.run(in_services(names, layout, alone_of, place))
            for name in names:
                cells = in_engine(name, layout, alone_of(name)) if with_engine else []
                table.add(name, title, [*cells, *served.get(name, ())])
    return table


def cached_shares(names: Sequence[str]) -> Table:
    table = Table()
    with tempfile.TemporaryDirectory() as folder:
        for title, layout in LAYOUTS.items():
            for name in names:
                place = Path(folder) / f"{name}-{layout.value}"
                table.add(name, title, asyncio.run(shares(place, name, layout)).cells)
    return table


def window_requests(model: Path, *, in_32_bits: bool) -> Table:
    table = Table()
    titles = {layout: title for title, layout in LAYOUTS.items()}
    weights = "32 bits" if in_32_bits else "as they are"
    for layout, cells in six_requests(model, in_32_bits=in_32_bits):
        table.add(weights, titles[layout], cells)
    return table


Titled = dict[str, tuple[Sequence[str], Table]]


def _tables(options: argparse.Namespace) -> Titled:
    """The tables that are asked for, with their columns behind the first two."""
    if options.windows is not None:
        title = f"six requests on sliding windows beside llama.cpp alone, {options.windows.name}"
        found = window_requests(options.windows, in_32_bits=options.in_32_bits)
        return {title: (REQUESTS, found)}
    names = options.only
    with_engine, with_services = not options.without_engine, not options.without_services
    columns = [*(IN_ENGINE if with_engine else ()), *(IN_SERVICE if with_services else ())]
    found = architectures(names, with_engine=with_engine, with_services=with_services)
    tables: Titled = {"architectures beside llama.cpp alone": (columns, found)}
    uncut = [name for name in names if name in UNCUT]
    if uncut and with_services:
        title = "prompts found in the cache, of models whose state cannot be cut"
        tables[title] = (SHARED, cached_shares(uncut))
    return tables


def _names(text: str) -> list[str]:
    return text.split(",")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", type=_names, default=list(FAMILIES), help="names of models")
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--without-engine", action="store_true", help="only the services' columns")
    parts.add_argument("--without-services", action="store_true", help="only the engine's columns")
    parser.add_argument("--windows", type=Path, help="six requests on this model instead")
    parser.add_argument("--in-32-bits", action="store_true", help="unpack its weights before")
    parser.add_argument("--results", type=Path)
    options = parser.parse_args(arguments)
    if len(options.only) == 1 and not options.without_services:
        parser.error("a service swaps between two models or more: name them, or --without-services")
    conditions = machine.conditions()
    tables = _tables(options)
    for title, (told, table) in tables.items():
        if options.results is not None:
            run = results.Run(
                title=title,
                command=results.spelled("python -m tests.models.table", arguments),
                conditions=conditions,
            )
            whole = results.Table(("model", "layout", *told), table.rows)
            results.append(options.results, run, whole)
    return int(any(table.n_wrong for _, table in tables.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
