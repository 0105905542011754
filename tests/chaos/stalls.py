"""Clients that stop: in a header, in a body, and while they should read. Beside an honest one.

Two engines show two things. With steps of `STEADY_MS` the scripted engine computes 200 rows in the
time of one, as a GPU does. The honest client then waits for the step under way, for the service's
own work for each row, and for its own steps. With short steps this work takes longer than the
steps. They fill the buffers of clients that do not read, until they are cut off.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import psutil

from tests.chaos.history import History, check
from tests.chaos.load import ask_fake, run_ask
from tests.chaos.report import Report, reporting, spread
from tests.chaos.rig import Rig, rig, stop_and_look

N_HEADERS = 500
N_BODIES = 500
N_READERS = 200
PER_ADDRESS = 400
N_TOKENS = 4000
N_HONEST = 4
"""Tokens of the honest client's answers."""
WARM_UP = 10
DRIBBLE_S = 1.0
SLOWEST = 2.0
GONE_WITHIN_S = 25.0
"""A header has 10 s, a body 10 s and its size over the rate; the rest is for a busy machine."""
CUT_WITHIN_S = 60.0
"""A client may take nothing for `WRITE_TIMEOUT_S`; before, the buffers of both sides fill."""
WRITE_TIMEOUT_S = 10
MAX_GROWTH_BYTES = 200 * 1024 * 1024
FAST_MS, STEADY_MS = 5, 50
"""Of a step. The second makes 20 tokens a second of a stream, 4,000 in all."""
ENVIRON = {
    "GPUFC_BACKEND": "fake",
    "GPUFC_LOG_LEVEL": "warning",
    "GPUFC_STANDBY": "none",
    "GPUFC_MAX_CONCURRENT_REQUESTS": "240",
    "GPUFC_N_CTX": "8192",
    "GPUFC_WRITE_TIMEOUT_S": str(WRITE_TIMEOUT_S),
}

_HEADER = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_BODY = b'{"prompt": "stalled", "stream": true, "ignore_eos": true, "max_tokens": %d}' % N_TOKENS


async def run(n_asks: int) -> Report:
    """The honest client's answers take at most twice as long, and the stalled ones are let go."""
    report = reporting(
        f"stalls: {N_HEADERS} headers, {N_BODIES} bodies and {N_READERS} readers that stop,"
        f" {n_asks} honest requests"
    )
    await _honest_beside(n_asks, report)
    await _let_go(n_asks, report)
    return report


async def _honest_beside(n_asks: int, report: Report) -> None:
    """An honest client beside all that stop, and alone."""
    async with _rig(STEADY_MS) as one:
        await _honest(one, WARM_UP, report)
        alone = await _honest(one, n_asks, report)
        async with _stalled(one, reads=False):
            beside = await _honest(one, n_asks, report)
        report.wrong += stop_and_look(one.service)
    report.row("first token, alone", spread([each.first_s for each in alone]))
    report.row("first token, beside all that stop", spread([each.first_s for each in beside]))
    report.row("honest, alone", _spread(alone))
    report.row("honest, beside all that stop", _spread(beside))
    ratio = _p99(beside) / _p99(alone)
    report.row("p99 beside all that stop, over alone", f"{ratio:.2f}")
    if ratio > SLOWEST:
        report.wrong.append(f"the honest client waited {ratio:.1f} times as long")


async def _let_go(n_asks: int, report: Report) -> None:
    """Clients that stop are let go in time, in bounded memory, and cost no more than readers."""
    async with _rig(FAST_MS) as one:
        await _honest(one, WARM_UP, report)
        alone = await _honest(one, n_asks, report)
        before = _rss(await one.figures())
        reading = await _beside(one, n_asks, report, reads=True)
        async with _stalled(one, reads=False) as crowd:
            beside = await _honest(one, n_asks, report)
            grown = _rss(await one.figures()) - before
            gone_s = await crowd.until_gone()
            cut_s = await crowd.until_cut_off(one.service.front)
        log = (one.service.runtime.logs / "front.log").read_text()
        report.wrong += stop_and_look(one.service)
    report.row("fast steps: honest, alone", _spread(alone))
    report.row(f"fast steps: honest, beside {N_READERS} readers that read", _spread(reading))
    report.row("fast steps: honest, beside all that stop", _spread(beside))
    report.row("the front's memory grew by", f"{grown / 2**20:.0f} MiB")
    report.row("stalled headers and bodies gone after", f"{gone_s:.1f} s")
    report.row("readers that stop cut off after, from the first on", f"{cut_s:.1f} s")
    report.row("cut off by the front, of the readers", str(log.count("stalled_client_cut_off")))
    report.row("errors in the log", str(log.count(" ERROR ")))
    ratio = _p99(beside) / _p99(reading)
    report.row(
        "fast steps: p99 beside those that stop, over beside those that read", f"{ratio:.2f}"
    )
    if ratio > SLOWEST:
        report.wrong.append(f"the honest client waited {ratio:.1f} times as long as beside readers")
    if grown > MAX_GROWTH_BYTES:
        report.wrong.append(f"the front grew by {grown / 2**20:.0f} MiB")
    if cut_s > CUT_WITHIN_S:
        report.wrong.append(f"readers that stop were there after {cut_s:.1f} s")
    if gone_s > GONE_WITHIN_S:
        report.wrong.append(f"stalled clients were there after {gone_s:.1f} s")


def _rig(step_ms: int) -> contextlib.AbstractAsyncContextManager[Rig]:
    return rig(environ=ENVIRON | {"GPUFC_FAKE_SCRIPT": f"step_ms={step_ms}"}, n_descriptors=4096)


async def _honest(one: Rig, n_asks: int, report: Report) -> list[History]:
    histories = []
    for number in range(n_asks):
        ask = ask_fake(f"honest {number}", N_HONEST)
        histories.append(await run_ask(one.session, one.url, ask, str(number)))
        report.wrong += check(histories[-1], [])
    return histories


async def _beside(one: Rig, n_asks: int, report: Report, *, reads: bool) -> list[History]:
    """With the readers alone: what their sequences cost the engine is no matter of stalling."""
    crowd = Crowd(one.url)
    try:
        await crowd.fill(headers=0, bodies=0, readers=N_READERS, reads=reads)
        return await _honest(one, n_asks, report)
    finally:
        await crowd.close()
        await one.until_idle()


@contextlib.asynccontextmanager
async def _stalled(one: Rig, *, reads: bool) -> AsyncIterator["Crowd"]:
    crowd = Crowd(one.url)
    try:
        await crowd.fill(headers=N_HEADERS, bodies=N_BODIES, readers=N_READERS, reads=reads)
        yield crowd
    finally:
        await crowd.close()
        await one.until_idle()


class Crowd:
    """Raw connections from several addresses of the loopback."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rsplit(":", 1)[1])
        self._n = 0
        self._tasks: list[asyncio.Task[float]] = []
        self._readers: list[asyncio.Task[None]] = []
        self._sockets: list[socket.socket] = []
        self._stopped_at = 0.0

    async def fill(self, *, headers: int, bodies: int, readers: int, reads: bool) -> None:
        """Connect all of them."""
        for _ in range(headers):
            self._tasks.append(asyncio.create_task(self._stall(await self._connect(), b"POST /")))
        for _ in range(bodies):
            begun = _HEADER + b"Content-Length: 100000\r\n\r\n{"
            self._tasks.append(asyncio.create_task(self._stall(await self._connect(), begun)))
        self._stopped_at = time.monotonic()
        for _ in range(readers):
            sock = await self._connect(small=not reads)
            length = b"Content-Length: %d\r\n\r\n" % len(_BODY)
            await asyncio.get_running_loop().sock_sendall(sock, _HEADER + length + _BODY)
            if reads:
                self._readers.append(asyncio.create_task(self._read(sock)))

    async def until_gone(self) -> float:
        """The longest time that a stalled header or body was left open."""
        return max(await asyncio.gather(*self._tasks), default=0.0)

    async def until_cut_off(self, front: psutil.Process) -> float:
        """The time until the front has let go of the readers, too. They are never told of it: a
        client that does not read sees no end."""
        ours = {sock.getsockname() for sock in self._sockets if sock.fileno() >= 0}
        while (gone_s := time.monotonic() - self._stopped_at) < 2 * CUT_WITHIN_S:
            found = await asyncio.to_thread(front.net_connections, "tcp4")
            if not any(tuple(each.raddr) in ours for each in found):
                break
            await asyncio.sleep(DRIBBLE_S)
        return gone_s

    async def close(self) -> None:
        """Leave all."""
        for task in (*self._tasks, *self._readers):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._readers, return_exceptions=True)
        for sock in self._sockets:
            sock.close()

    async def _connect(self, *, small: bool = False) -> socket.socket:
        """With `small`, the kernel keeps little for it."""
        sock = socket.socket()
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        sock.bind((f"127.0.0.{2 + self._n // PER_ADDRESS}", 0))
        self._n += 1
        self._sockets.append(sock)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        return sock

    async def _stall(self, sock: socket.socket, begun: bytes) -> float:
        """Begin, then send a byte a second. Returns when the front has closed the connection."""
        loop, started = asyncio.get_running_loop(), time.monotonic()
        with contextlib.suppress(OSError):
            await loop.sock_sendall(sock, begun)
            while True:
                try:
                    async with asyncio.timeout(DRIBBLE_S):
                        if not await loop.sock_recv(sock, 4096):
                            break
                except TimeoutError:
                    await loop.sock_sendall(sock, b"x")
        return time.monotonic() - started

    async def _read(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while await asyncio.get_running_loop().sock_recv(sock, 65_536):
                pass


def _rss(figures: dict[str, object]) -> int:
    front = figures["front"]
    assert isinstance(front, dict)
    return int(psutil.Process(front["pid"]).memory_info().rss)


def _spread(answers: list[History]) -> str:
    return spread([answer.took_s for answer in answers])


def _p99(answers: list[History]) -> float:
    return sorted(answer.took_s for answer in answers)[int(0.99 * (len(answers) - 1))]
