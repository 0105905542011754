"""An idle model's memory: what a process and its GPU hold before, with, and after a model.

    python -m scripts.lab.idle_model MODEL.gguf [--keep-alive 3] [--results FILE]

One service with one model, which is unloaded after `--keep-alive` seconds without requests. The
rows are its states in turn: loaded, gone, loaded again by the next request. `/readyz` is asked all
the time and has to answer 200 throughout. Memory of the GPUs is theirs in all, by NVML: other
programs' use of them would be in it. Without a GPU its column has dashes.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from scripts.lab.several_gpus import MIB, memory
from tests import machine, results
from tests.service import Service, service, wait_for

COLUMNS = ("state", "worker processes", "their memory, MiB", "memory of the GPUs, MiB")
LOADS_WITHIN_S = 120.0
SETTLE_S = 10.0
ASK_EVERY_S = 0.02


class Readiness:
    """Asks `/readyz` again and again, in a thread of its own."""

    def __init__(self, url: str) -> None:
        self.n_asked = 0
        self.refused: list[int] = []  # codes of answers; 0 for a request without an answer
        self._url = f"{url}/readyz"
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ends.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._ends.wait(ASK_EVERY_S):
            self.n_asked += 1
            try:
                urllib.request.urlopen(self._url, timeout=10).close()
            except OSError as err:  # a refused connection or a time-out has no code
                self.refused.append(getattr(err, "code", 0))


def main() -> None:
    options = _options()
    conditions = machine.conditions()
    before = memory()
    with tempfile.TemporaryDirectory(prefix="im", dir="/tmp") as folder:
        words = ("--model-path", str(options.model), "--n-ctx", "2048")
        environ = {"GPUFC_KEEP_ALIVE_S": str(options.keep_alive), "GPUFC_STANDBY": "none"}
        with service(Path(folder) / "r", *words, environ=environ) as one:
            one.wait_ready()
            asked = Readiness(one.url)
            rows = [_row("before the service", [], before)]
            rows += _states(one, options.keep_alive, before)
            asked.end()
    rows.append(
        (f"/readyz: 200 of {asked.n_asked:,}", str(asked.n_asked - len(asked.refused)), "", "")
    )
    for row in rows:
        print(" | ".join(row), flush=True)
    if options.results is not None:
        title = f"{options.model.name}: unloaded after {options.keep_alive} s without requests"
        command = results.spelled("python -m scripts.lab.idle_model", sys.argv[1:])
        run = results.Run(title=title, command=command, conditions=conditions)
        results.append(options.results, run, results.Table(COLUMNS, rows))


def _states(one: Service, keep_alive_s: float, before: list[float]) -> list[tuple[str, ...]]:
    rows = []
    first_s = _ask(one.url)
    rows.append(_row(f"loaded, first token after {first_s:.2f} s", _workers(one), memory()))
    began = time.monotonic()
    wait_for(lambda: not _workers(one), keep_alive_s + LOADS_WITHIN_S, "the model is unloaded")
    gone_s = time.monotonic() - began
    wait_for(lambda: memory() <= before, SETTLE_S, "the GPU has the model's memory back")
    free_s = time.monotonic() - began
    state = f"process gone after {gone_s:.2f} s, memory free after {free_s:.2f} s"
    rows.append(_row(state, _workers(one), memory()))
    again_s = _ask(one.url)
    rows.append(_row(f"loaded again, first token after {again_s:.2f} s", _workers(one), memory()))
    return rows


def _ask(url: str) -> float:
    """The seconds until an answer of one token is there."""
    body = json.dumps({"prompt": "Once upon a time", "max_tokens": 1}).encode()
    headers = {"Content-Type": "application/json"}
    began = time.monotonic()
    request = urllib.request.Request(f"{url}/v1/completions", body, headers)
    with urllib.request.urlopen(request, timeout=LOADS_WITHIN_S) as answer:
        json.load(answer)
    return time.monotonic() - began


def _workers(one: Service) -> list[psutil.Process]:
    """The worker processes that live: what the front has started, but for helpers of theirs."""
    found = []
    for process in one.front.children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if "engine_worker" in words:
            found.append(process)
    return found


def _row(state: str, workers: list[psutil.Process], on_gpus: list[float]) -> tuple[str, ...]:
    resident = sum(process.memory_info().rss for process in workers) / MIB
    shown: Any = " + ".join(f"{used:,.0f}" for used in on_gpus) or "–"
    return state, str(len(workers)), f"{resident:,.0f}", shown


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--keep-alive", type=float, default=3.0, metavar="S")
    parser.add_argument("--results", type=Path, metavar="FILE", help="append the table to it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
