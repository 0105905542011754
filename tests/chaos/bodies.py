"""Large bodies, one after the other, while a prober sees how long the front's loop is held.

A probe is one request to `/livez` on a connection of its own. The time to its answer, beyond that
of an idle front, is the time for which the loop was busy with something else. On a busy machine it
is also the time for which the front had no core. So the processor time that all of the front's
threads used between a probe and its answer is read too: the front cannot have held its loop for
longer than that, unless it waited for a disk. The smaller of both is judged.
"""

import asyncio
import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from supervisor.http.edge import body_cost
from supervisor.http.generation.fields import MAX_TOKEN_IDS
from tests.chaos.report import Report, percentile, reporting
from tests.chaos.rig import rig, stop_and_look
from tests.service import wait_for

BODY_BYTES = 8 * 1024 * 1024
STALL_S = 0.020
PAUSE_S = 0.001
IDLE_S = 3.0
ENVIRON = {
    "GPUFC_BACKEND": "fake",
    "GPUFC_LOG_LEVEL": "warning",
}
CHAT, COMPLETION, TOKENIZE = "/v1/chat/completions", "/v1/completions", "/tokenize"

Made = tuple[str, bytes]
Lags = list["Lag"]


class Lag(NamedTuple):
    """What one probe saw, in seconds: until its answer, and the front's processor time."""

    wall_s: float
    cpu_s: float

    @property
    def held_s(self) -> float:
        """For how long the front held its loop, at most."""
        return min(self.wall_s, self.cpu_s)


def processor_clock(pid: int) -> int:
    """The number of another process's clock of processor time (`clock_getcpuclockid`)."""
    return (~pid << 3) | 2


def _chat(**fields: object) -> Made:
    message = {"role": "user", "content": "Hello"}
    return CHAT, json.dumps({"messages": [message], "max_tokens": 2} | fields).encode()


def _deep(opening: str, closing: str, depth: int) -> Made:
    path, body = _chat()
    return path, body[:-1] + f', "metadata": {opening * depth}1{closing * depth}}}'.encode()


def _text(character: str, *, ascii_only: bool = True) -> Made:
    size = len(json.dumps(character, ensure_ascii=ascii_only).encode()) - 2
    content = character * ((BODY_BYTES - 200) // size)
    fields = {"messages": [{"role": "user", "content": content}], "max_tokens": 2}
    return CHAT, json.dumps(fields, ensure_ascii=ascii_only).encode()


def _messages(n: int, size: int) -> Made:
    return _chat(messages=[{"role": "user", "content": "x" * size}] * n)


def _tools(n: int, n_properties: int, size: int) -> Made:
    schema = {
        "type": "object",
        "properties": {f"p{i}": {"type": "string"} for i in range(n_properties)},
    }
    tools = [
        {
            "type": "function",
            "function": {"name": f"f{i}", "description": "d" * size, "parameters": schema},
        }
        for i in range(n)
    ]
    return _chat(tools=tools)


def _parts(n: int, size: int) -> list[dict[str, str]]:
    return [{"type": "text", "text": "x" * size}] * n


def _of_another_dialect(path: str, **fields: object) -> Made:
    return path, json.dumps(fields).encode()


def _tokens(prompt: object) -> Made:
    return COMPLETION, json.dumps({"prompt": prompt, "max_tokens": 2}).encode()


N_PARTS, N_RESULTS = 9000, 5000
"""Near the largest numbers whose values are decoded (`body_cost.MOST`)."""
_RESULT = {"type": "tool_result", "tool_use_id": "t" * 20, "content": "x" * 1500}

BODIES: dict[str, Callable[[], Made]] = {
    "arrays in arrays": lambda: _deep("[", "]", BODY_BYTES // 2 - 200),
    "arrays in arrays, few enough to decode": lambda: _deep("[", "]", body_cost.MOST // 13),
    "objects in objects": lambda: _deep('{"a":', "}", BODY_BYTES // 6 - 200),
    "one string": lambda: _text("x"),
    "one string of escapes": lambda: _text("\n"),
    "one string of escaped characters": lambda: _text("é"),
    "one string of other characters": lambda: _text("語", ascii_only=False),
    "one string of quotes": lambda: _text('"'),
    "messages of a byte": lambda: _messages(BODY_BYTES // 40, 1),
    "as many messages as are decoded": lambda: _messages(4096, 2000),
    "tools of a byte": lambda: _tools(BODY_BYTES // 150, 0, 1),
    "as many tools as are decoded": lambda: _tools(1400, 2, 5500),
    "few tools of many properties": lambda: _tools(3, 2500, 2_600_000),
    "token ids": lambda: _tokens([12_345] * (BODY_BYTES // 7)),
    "as many token ids as are decoded": lambda: _tokens([12_345] * MAX_TOKEN_IDS),
    "prompts of token ids": lambda: _tokens([[12_345] * 7700] * 64),
    "Responses: as many items as are decoded": lambda: _of_another_dialect(
        "/v1/responses",
        input=[{"role": "user", "content": _parts(1, 1900)}] * 4095,
        max_output_tokens=16,
    ),
    "Anthropic: as many blocks as are decoded": lambda: _of_another_dialect(
        "/v1/messages",
        messages=[{"role": "user", "content": _parts(N_PARTS, 900)}],
        max_tokens=2,
    ),
    "Anthropic: as many results of tools": lambda: _of_another_dialect(
        "/v1/messages",
        messages=[{"role": "user", "content": [_RESULT] * N_RESULTS}],
        max_tokens=2,
    ),
    "Ollama: as many messages as are decoded": lambda: _of_another_dialect(
        "/api/chat", messages=[{"role": "user", "content": "x" * 2000}] * 4096, stream=False
    ),
    "as many documents as are ranked": lambda: _of_another_dialect(
        "/v1/rerank", query="x", documents=["x" * 4000] * 2048
    ),
    "a text to tokenize": lambda: (TOKENIZE, json.dumps({"content": "x " * 4_190_000}).encode()),
}
"""By name, what makes a path and a body: of the largest size, or of the most values."""


class Prober:
    """Requests to `/livez` without end, in a thread of its own. `lags` has what each one saw."""

    def __init__(self, address: tuple[str, int], pid: int) -> None:
        self.lags: Lags = []
        self._over = threading.Event()
        self._address = address
        self._clock = processor_clock(pid)
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Returns when the first probe has been answered."""
        self._thread.start()
        wait_for(lambda: self.lags, why="a probe is answered")

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with socket.create_connection(self._address) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self._over.wait(PAUSE_S):
                used, started = time.clock_gettime(self._clock), time.monotonic()
                connection.sendall(_head("GET", "/livez", self._address, ""))
                _answer(connection)
                wall_s = time.monotonic() - started
                self.lags.append(Lag(wall_s, time.clock_gettime(self._clock) - used))


@contextlib.contextmanager
def probing(address: tuple[str, int], pid: int) -> Iterator[Lags]:
    """The lags of the front with this pid while the block runs."""
    prober = Prober(address, pid)
    prober.start()
    try:
        yield prober.lags
    finally:
        prober.stop()


async def run(n_each: int) -> Report:
    """Each kind of body `n_each` times: none holds the loop for longer than is promised."""
    report = reporting(f"bodies: {len(BODIES)} kinds of 8 MiB, each {n_each} times")
    async with rig(environ=ENVIRON) as one:
        place = urlsplit(one.url)
        address = (str(place.hostname), int(place.port or 0))
        pid = one.service.front.pid
        with probing(address, pid) as idle:
            await asyncio.sleep(IDLE_S)  # a span of time that is measured, not waited for
        report.row("an idle front", _spelled(idle))
        for name, make in BODIES.items():
            path, body = make()
            rounds: list[Lags] = []
            for _ in range(n_each):
                with probing(address, pid) as lags:
                    status = await asyncio.to_thread(_send, address, path, body)
                rounds.append(lags)
                await one.until_idle()
            report.row(f"{name} ({len(body) / 2**20:.1f} MiB): {status}", _spelled(*rounds))
            held_s = percentile([_longest(lags) for lags in rounds], 0.5)
            if held_s > STALL_S:
                report.wrong.append(f"{name} holds the loop for {held_s:.3f} s")
        report.wrong += stop_and_look(one.service)
    return report


def _longest(lags: Lags) -> float:
    return max(lag.held_s for lag in lags)


def _spelled(*rounds: Lags) -> str:
    """The longest of each round, by size: the loop held by the front itself, and any lag."""
    held = ", ".join(f"{lag * 1000:.0f}" for lag in sorted(map(_longest, rounds)))
    walls = [lag.wall_s for lags in rounds for lag in lags]
    return (
        f"held {held} ms; lag p50 {percentile(walls, 0.5) * 1000:.1f}, "
        f"longest {max(walls) * 1000:.0f} ms"
    )


def _send(address: tuple[str, int], path: str, body: bytes) -> int:
    """Post a body; the answer's status."""
    with socket.create_connection(address) as connection:
        more = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(_head("POST", path, address, more))
        with contextlib.suppress(ConnectionError):  # refused before it was read
            connection.sendall(body)
        return _answer(connection)


def _head(method: str, path: str, address: tuple[str, int], more: str) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n{more}\r\n".encode()


def _answer(connection: socket.socket) -> int:
    """Read one answer with a length; its status."""
    read = b""
    while b"\r\n\r\n" not in read:
        read += _more(connection)
    head, _, rest = read.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    n_left = int(length[1]) - len(rest) if length else 0
    while n_left > 0:
        n_left -= len(_more(connection))
    return int(head.split()[1])


def _more(connection: socket.socket) -> bytes:
    found = connection.recv(1 << 16)
    if not found:
        raise ConnectionError("closed before the answer's end")
    return found
