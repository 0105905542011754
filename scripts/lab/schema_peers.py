"""The schemas of `scripts.lab.schemas` on guided decoders, side by side, as a table.

    python -m scripts.lab.schema_peers SCHEMAS.jsonl.gz MODEL.gguf [--only NAME …] [--every N]
                                       [--processes N]

Each decoder reads the schemas in a process of its own, or in N, one after the other. A schema that
takes more than `LIMIT_S`, or that ends its process, counts as refused by name, and a new process
goes on. Times are CPU times of the process, memory is what is resident in the largest one.
"""

import argparse
import gzip
import json
import multiprocessing
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from engine_worker.constraints.references import References
from scripts.lab.guided_decoders import DECODERS, Decoder
from scripts.lab.schemas import Model, ordered

LIMIT_S = 20.0
N_RESTORED = 2000
START_S = 300.0
N_TRIES = 500
ENDED = "the process died"
SLOW = f"no answer within {LIMIT_S:.0f} s of CPU time"
TEXTS = '{"type": "array", "items": {"type": "string"}}'
"""The schema of the answer that is restored."""


def serve(name: str, model_path: str, connection: Connection) -> None:
    """Check the rows that come, in a process that may die of one."""
    model = Model(model_path)
    process = psutil.Process()
    before, since = process.memory_info().rss, time.process_time()
    decoder = DECODERS[name](model)
    facts: dict[str, Any] = {"read_s": time.process_time() - since}
    facts["vocabulary_mib"] = (process.memory_info().rss - before) / 2**20
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
    """What one decoder's rows have shown."""

    def __init__(self) -> None:
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

    def add(self, other: "Tally") -> None:
        """Take what another process has shown. The facts stay those of the first one."""
        self.n += other.n
        self.refused += other.refused
        self.facts = self.facts or other.facts
        self.compile_ms += other.compile_ms
        self.mask_us += other.mask_us
        self.most_mib = max(self.most_mib, other.most_mib)

    def cells(self) -> dict[str, str]:
        """The column of the table."""
        n = self.n
        compiling, masking = self.facts["frees_lock"]
        return {
            "schemas accepted": f"{n['accepted']} of {n['schemas']}",
            "valid instances refused": f"{n['valid wrong']} of {n['valid']}",
            "invalid instances allowed": f"{n['invalid wrong']} of {n['invalid']}",
            "a mask, µs: p50, p99, max": spread(self.mask_us),
            "compile, ms: p50, p99, max": spread(self.compile_ms),
            f"restore at token {N_RESTORED:,}": f"{self.facts['restore_ms']:.1f} ms",
            "vocabulary read": f"{self.facts['read_s']:.2f} s",
            "memory, MiB: vocabulary read, most": (
                f"{self.facts['vocabulary_mib']:.0f}, {self.most_mib:.0f}"
            ),
            "frees the interpreter lock": (
                f"compiling {'yes' if compiling else 'no'}, a mask {'yes' if masking else 'no'}"
            ),
            "processes died": str(self.refused[ENDED]),
            SLOW: str(self.refused[SLOW]),
        }


def spread(values: list[float]) -> str:
    if not values:
        return "none"
    return ", ".join(f"{value:,.1f}" for value in np.percentile(values, [50, 99, 100]))


def tallied(name: str, rows: Iterator[bytes], model: str) -> Tally:
    spawn = multiprocessing.get_context("spawn")
    tally, child, here = Tally(), None, None
    for line in rows:
        if child is None or here is None:
            here, there = spawn.Pipe()
            child = spawn.Process(target=serve, args=(name, model, there), daemon=True)
            child.start()
            there.close()
            if not here.poll(START_S):
                raise TimeoutError(f"{name} does not start")
            tally.facts = here.recv()
        here.send(line.decode())
        found = answered(psutil.Process(child.pid), here)
        tally.take(found)
        if tally.n["schemas"] % 20 == 0:
            print(f"  {name}: {tally.n['schemas']} schemas", file=sys.stderr, flush=True)
        if found.get("refused") in (SLOW, ENDED):
            child.kill()
            child = here = None
    if child is not None:
        child.kill()
    return tally


def in_processes(name: str, lines: list[bytes], model: str, n_processes: int) -> Tally:
    """What the decoder shows of all lines, dealt to so many processes."""
    hands = [iter(lines[at::n_processes]) for at in range(n_processes)]
    whole = Tally()
    with ThreadPoolExecutor(n_processes) as threads:
        for one in threads.map(lambda hand: tallied(name, hand, model), hands):
            whole.add(one)
    return whole


def answered(process: psutil.Process, connection: Connection) -> dict[str, Any]:
    """What the process has found, or why it will not."""
    try:
        started = sum(process.cpu_times()[:2])
        while not connection.poll(0.5):
            if sum(process.cpu_times()[:2]) - started > LIMIT_S:
                return {"refused": SLOW}
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
    options = parser.parse_args()
    columns, lines = {}, list(rows(options.schemas, options.every))
    for name in options.only:
        tally = in_processes(name, lines, options.model, options.processes)
        columns[name] = tally.cells()
        print(name, columns[name], flush=True)
        for reason, count in tally.refused.most_common(25):
            print(f"  refused {count}: {reason}", flush=True)
    print("| |", " | ".join(columns), "|")
    print("| --- |", " | ".join("---" for _ in columns), "|")
    for title in next(iter(columns.values())):
        print("|", title, "|", " | ".join(cells[title] for cells in columns.values()), "|")


if __name__ == "__main__":
    main()
