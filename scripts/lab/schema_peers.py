"""The schemas of `scripts.lab.schemas` on guided decoders, side by side, as a table.

    python -m scripts.lab.schema_peers SCHEMAS.jsonl.gz MODEL.gguf [--only NAME …] [--every N]
                                       [--processes N] [--table FILE.md]

Each decoder reads the schemas in a process of its own, or in N, one after the other. A schema that
takes more than `LIMIT_S`, or that ends its process, counts as refused by name, and a new process
goes on. Times are CPU times of the process, memory is what is resident in the largest one.

`--table` is written again while the schemas are read: a run that is cut off leaves the columns that
it has got, each with the number of schemas that it has read.
"""

import argparse
import gzip
import json
import multiprocessing
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import nan
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from engine_worker.constraints.references import References
from scripts.lab.guided_decoders import DECODERS, Decoder
from scripts.lab.schemas import Model, ordered

LIMIT_S = 20.0
STILL_S = 180.0
"""A process that gives no answer for so long by the clock, with little CPU time, waits for ever."""
WRITE_EVERY = 20
N_RESTORED = 2000
START_S = 300.0
N_TRIES = 500
ENDED = "the process died"
SLOW = f"no answer within {LIMIT_S:.0f} s of CPU time"
STILL = f"no answer within {STILL_S:.0f} s"
TEXTS = '{"type": "array", "items": {"type": "string"}}'
"""The schema of the answer that is restored."""


def serve(name: str, model_path: str, connection: Connection, *, probes: bool) -> None:
    """Check the rows that come, in a process that may die of one."""
    model = Model(model_path)
    process = psutil.Process()
    before, since = process.memory_info().rss, time.process_time()
    decoder = DECODERS[name](model)
    facts: dict[str, Any] = {"read_s": time.process_time() - since}
    facts["vocabulary_mib"] = (process.memory_info().rss - before) / 2**20
    if probes:
        facts |= probed(decoder, model)
    connection.send(facts)
    while True:
        row = json.loads(connection.recv())
        found = checked(row, model, decoder)
        connection.send(found | {"mib": (process.memory_info().rss - before) / 2**20})


def probed(decoder: Decoder, model: Model) -> dict[str, Any]:
    """The cost of restoring a state, and whether other threads run meanwhile."""
    words = json.dumps([f"word {number}" for number in range(N_RESTORED)])
    tokens = model.written(words)[:N_RESTORED]
    compiled = decoder.compile(TEXTS)
    since = time.process_time()
    decoder.guide(compiled).read(tokens)
    restore_ms = 1e3 * (time.process_time() - since)
    wide = json.dumps({"enum": [f"value {number}" for number in range(300)]})
    guide = decoder.guide(compiled)
    return {
        "restore_ms": restore_ms,
        "frees_lock": [lets_others_run(lambda: decoder.compile(wide)), lets_others_run(guide.mask)],
    }


def lets_others_run(work: Callable[[], object]) -> bool:
    """Whether another thread gets the interpreter while this one works. Without switches by time,
    it does only where `work` gives the interpreter up itself. A short work may take it back before
    the other thread wakes, so there are `N_TRIES`."""
    turns, is_over, before = 0, False, sys.getswitchinterval()

    def turn() -> None:
        nonlocal turns
        while not is_over:
            turns += 1
            time.sleep(0)

    sys.setswitchinterval(3600.0)
    other = threading.Thread(target=turn)
    other.start()
    try:
        for _ in range(N_TRIES):
            start = turns
            work()
            if turns > start:
                return True
        return False
    finally:
        is_over = True
        sys.setswitchinterval(before)
        other.join()


def checked(row: dict[str, Any], model: Model, decoder: Decoder) -> dict[str, Any]:
    since = time.process_time()
    try:
        compiled = decoder.compile(json.dumps(row["schema"]))
    except Exception as err:  # each decoder has errors of its own
        first = (str(err).splitlines() or [""])[0]
        return {"refused": f"{type(err).__name__}: {first[:80]}"}
    found: dict[str, Any] = {"compile_ms": 1e3 * (time.process_time() - since), "wrong": []}
    references = References(row["schema"])
    decoder.mask_us.clear()
    for kind in ("valid", "invalid"):
        for instance in row[kind]:
            written = json.dumps(ordered(instance, [row["schema"]], references), ensure_ascii=False)
            guide = decoder.guide(compiled)
            allowed = all(map(guide.allows, model.written(written))) and guide.may_end()
            found[kind] = found.get(kind, 0) + 1
            if allowed != (kind == "valid"):
                found["wrong"].append(kind)
    found["mask_us"] = list(decoder.mask_us)
    return found


class Tally:
    """What one decoder's rows have shown. Several threads add to it, with its lock held."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.n, self.refused = Counter[str](), Counter[str]()
        self.facts: dict[str, Any] = {}
        self.compile_ms: list[float] = []
        self.mask_us: list[float] = []
        self.most_mib = 0.0

    def take(self, found: dict[str, Any]) -> None:
        self.n["schemas"] += 1
        self.most_mib = max(self.most_mib, found.get("mib", 0.0))
        if "refused" in found:
            self.refused[found["refused"]] += 1
            return
        self.n["accepted"] += 1
        self.n.update({kind: found.get(kind, 0) for kind in ("valid", "invalid")})
        self.n.update(f"{kind} wrong" for kind in found["wrong"])
        self.compile_ms.append(found["compile_ms"])
        self.mask_us += found["mask_us"]

    def cells(self) -> dict[str, str]:
        """The column of the table."""
        n, facts = self.n, self.facts
        frees = dict(zip(("compiling", "a mask"), facts.get("frees_lock", ()), strict=False))
        return {
            "schemas accepted": f"{n['accepted']} of {n['schemas']}",
            "valid instances refused": f"{n['valid wrong']} of {n['valid']}",
            "invalid instances allowed": f"{n['invalid wrong']} of {n['invalid']}",
            "a mask, µs: p50, p99, max": spread(self.mask_us),
            "compile, ms: p50, p99, max": spread(self.compile_ms),
            f"restore at token {N_RESTORED:,}": f"{facts.get('restore_ms', nan):.1f} ms",
            "vocabulary read": f"{facts.get('read_s', nan):.2f} s",
            "memory, MiB: vocabulary read, most": (
                f"{facts.get('vocabulary_mib', nan):.0f}, {self.most_mib:.0f}"
            ),
            "frees the interpreter lock": ", ".join(
                f"{work} {'yes' if is_freed else 'no'}" for work, is_freed in frees.items()
            ),
            "processes died": str(self.refused[ENDED]),
            SLOW: str(self.refused[SLOW]),
        }


def spread(values: list[float]) -> str:
    if not values:
        return "none"
    return ", ".join(f"{value:,.1f}" for value in np.percentile(values, [50, 99, 100]))


class Child:
    """A process of one decoder. It is replaced once it has died or has been too slow."""

    def __init__(self, name: str, model: str, *, probes: bool) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._here, there = spawn.Pipe()
        arguments = (name, model, there)
        self._process = spawn.Process(
            target=serve, args=arguments, kwargs={"probes": probes}, daemon=True
        )
        self._process.start()
        there.close()
        try:
            if not self._here.poll(START_S):
                raise EOFError
            self.facts: dict[str, Any] = self._here.recv()
        except EOFError:
            self.end()
            raise RuntimeError(f"a process of {name} does not start") from None

    def found(self, line: bytes) -> dict[str, Any]:
        """What the process has found in a row, or why it will not."""
        try:
            self._here.send(line.decode())
            return answered(psutil.Process(self._process.pid), self._here)
        except (BrokenPipeError, psutil.NoSuchProcess):
            return {"refused": ENDED}

    def end(self) -> None:
        self._process.kill()
        self._process.join()


def read(
    name: str,
    lines: deque[bytes],
    model: str,
    tally: Tally,
    on_row: Callable[[], None],
    *,
    probes: bool,
) -> None:
    """Let a process of this decoder read rows that several threads take, and another one after it
    if it ends. Raises `RuntimeError` if a process does not start, and has then taken no row."""
    child = None
    while lines:
        if child is None:
            child = Child(name, model, probes=probes)
        try:
            line = lines.popleft()
        except IndexError:  # another thread has taken the last one
            break
        found = child.found(line)
        with tally.lock:
            tally.facts |= child.facts
            tally.take(found)
            on_row()
        if found.get("refused") in (SLOW, STILL, ENDED):
            child.end()
            child = None
    if child is not None:
        child.end()


def in_processes(
    name: str, lines: list[bytes], options: argparse.Namespace, columns: dict[str, Tally]
) -> None:
    """Read all lines in so many processes. The first one probes the decoder."""
    tally, left = columns[name], deque(lines)

    def on_row() -> None:
        n_read = tally.n["schemas"]
        if n_read % WRITE_EVERY == 0 or n_read == len(lines):
            print(f"  {name}: {n_read} schemas", file=sys.stderr, flush=True)
            write(options.table, columns)

    with ThreadPoolExecutor(options.processes) as threads:
        hands = [
            threads.submit(read, name, left, options.model, tally, on_row, probes=number == 0)
            for number in range(min(options.processes, len(lines)))
        ]
    for hand in hands:
        if hand.exception() is not None:
            print(f"  {hand.exception()}", file=sys.stderr, flush=True)


def table(columns: dict[str, Tally]) -> str:
    """The table, and under it the reasons of refusals."""
    cells = {name: tally.cells() for name, tally in columns.items() if tally.n["schemas"]}
    lines = [_line("", cells), _line("---", ["---"] * len(cells))]
    for title in next(iter(cells.values()), {}):
        lines.append(_line(title, [one[title] for one in cells.values()]))
    for name in cells:
        lines.append("")
        lines += [
            f"- {name} refused {count}: {reason}"
            for reason, count in columns[name].refused.most_common(25)
        ]
    return "\n".join(lines) + "\n"


def _line(title: str, cells: Iterable[str]) -> str:
    return f"| {' | '.join((title, *cells))} |"


def write(path: Path | None, columns: dict[str, Tally]) -> None:
    """Write the table as a whole, so that a run that is cut off leaves a whole one."""
    if path is not None:
        new = path.with_suffix(".new")
        new.write_text(table(columns))
        new.replace(path)


def answered(process: psutil.Process, connection: Connection) -> dict[str, Any]:
    """What the process has found, or why it will not."""
    try:
        started, since = sum(process.cpu_times()[:2]), time.monotonic()
        while not connection.poll(0.5):
            if sum(process.cpu_times()[:2]) - started > LIMIT_S:
                return {"refused": SLOW}
            if time.monotonic() - since > STILL_S:
                return {"refused": STILL}
        found: dict[str, Any] = connection.recv()
    except (EOFError, psutil.NoSuchProcess):
        return {"refused": ENDED}
    return found


def rows(path: Path, every: int) -> Iterator[bytes]:
    with gzip.open(path) as file:
        for number, line in enumerate(file):
            if number % every == 0:
                yield line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("schemas", type=Path)
    parser.add_argument("model")
    parser.add_argument("--only", nargs="+", choices=DECODERS, default=list(DECODERS))
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth schema")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="of each decoder")
    parser.add_argument("--table", type=Path, metavar="FILE.md", help="written meanwhile, too")
    options = parser.parse_args()
    lines = list(rows(options.schemas, options.every))
    columns = {name: Tally() for name in options.only}
    for name in options.only:
        in_processes(name, lines, options, columns)
    print(table(columns), end="")


if __name__ == "__main__":
    main()
