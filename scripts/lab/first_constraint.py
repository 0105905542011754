"""The first constraint of a worker, beside a stream: its time, and the stream's longest pause.

    python -m scripts.lab.first_constraint MODEL.gguf [--kill]

The stream begins first. With `--kill` its worker is killed before the request with the constraint,
so that another worker goes on with the stream. Prints one row of a table.
"""

import argparse
import json
import os
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.service import Service, service, wait_for

N_BEFORE = 5
"""Events of the stream before the worker is killed or asked."""
LOOK_S = 0.1
TIMEOUT_S = 600
STREAM = {
    "prompt": "Once upon a time",
    "max_tokens": 3000,
    "stream": True,
    "ignore_eos": True,
    "temperature": 1,
}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
GUIDED = {
    "messages": [{"role": "user", "content": "A name and an age."}],
    "max_tokens": 20,
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
}
COLUMNS = "ready, s | asked, s | pause before | pause meanwhile | heartbeat's age | restarts | load"


class Watched:
    """The times of a stream's events, and the ages of its worker's heartbeats."""

    def __init__(self, running: Service) -> None:
        self._running = running
        self._is_over = threading.Event()
        self.events: list[float] = []
        self.ages: list[tuple[float, float]] = []
        for work in (self._read, self._look):
            threading.Thread(target=work, daemon=True).start()

    def wait_events(self, n_more: int) -> None:
        n_wanted = len(self.events) + n_more
        wait_for(lambda: len(self.events) >= n_wanted, TIMEOUT_S, "the stream goes on")

    def pause(self, begin: float, end: float) -> float:
        """The longest pause that ended between two times."""
        pairs = zip(self.events, self.events[1:], strict=False)
        return max((now - before for before, now in pairs if begin <= now <= end), default=0.0)

    def age(self, begin: float, end: float) -> float:
        return max((age for at, age in self.ages if begin <= at <= end), default=0.0)

    def close(self) -> None:
        self._is_over.set()

    def _read(self) -> None:
        for _ in lines(self._running.url, "/v1/completions", STREAM):
            self.events.append(time.monotonic())
            if self._is_over.is_set():
                return

    def _look(self) -> None:
        while not self._is_over.wait(LOOK_S):
            last_at = self._running.worker()["last_heartbeat_at"]
            if last_at is not None:
                self.ages.append((time.monotonic(), time.time() - last_at))


def lines(url: str, route: str, body: dict[str, Any]) -> Iterator[bytes]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url + route, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        yield from answer


def row(running: Service, *, kills: bool) -> str:
    watched = Watched(running)
    watched.wait_events(N_BEFORE)
    if kills:
        running.wait_epoch_after(running.kill_worker(), TIMEOUT_S)
        watched.wait_events(N_BEFORE)
    first, asked = watched.events[-N_BEFORE], time.monotonic()
    list(lines(running.url, "/v1/chat/completions", GUIDED))
    answered = time.monotonic()
    watched.wait_events(1)
    worker = running.worker()
    watched.close()
    seconds = (
        *(worker["loaded_in_s"], answered - asked),
        *(watched.pause(first, asked), watched.pause(asked, watched.events[-1])),
        watched.age(asked, answered),
    )
    told = " | ".join(f"{one:.2f}" for one in seconds)
    return f"| {told} | {worker['restarts']} | {os.getloadavg()[0]:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--kill", action="store_true", help="kill the stream's worker before")
    options = parser.parse_args()
    arguments = ["--model-path", str(options.model), "--n-ctx", "4096"]
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder) / "run", *arguments) as running,
    ):
        print(f"| {COLUMNS} |\n{row(running, kills=options.kill)}", flush=True)


if __name__ == "__main__":
    main()
