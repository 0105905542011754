"""A flood of idle connections that takes each descriptor that falls free, and kills meanwhile."""

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator

from supervisor.descriptors import for_connections
from tests.chaos.history import check
from tests.chaos.load import ask_fake, run_ask
from tests.chaos.report import Report, reporting, spread
from tests.chaos.rig import Figures, Rig, generated, rig, send, stop_and_look

N_DESCRIPTORS = 1024
"""The usual soft limit, here the hard one too: the front cannot raise it."""
N_CONNECTIONS = 1024
N_HELD = for_connections(N_DESCRIPTORS) - 16
"""Of these connections the front holds so many; its few others are the clients' own."""
PER_ADDRESS = 512
N_TOKENS = 400
READY_WITHIN_S = 5.0
PAUSE_S = 0.02
ENVIRON = {
    "GPUFC_BACKEND": "fake",
    "GPUFC_FAKE_SCRIPT": "step_ms=10",
    "GPUFC_RESTART_LIMIT": "1000",
    "GPUFC_LOG_LEVEL": "warning",
}


async def run(n_kills: int) -> Report:
    """After each kill the service is ready again by itself, and the stream is whole."""
    report = reporting(
        f"floods: {n_kills} kills under {N_CONNECTIONS} idle connections, {N_DESCRIPTORS} "
        "descriptors"
    )
    took: list[float] = []
    async with rig(environ=ENVIRON, n_descriptors=N_DESCRIPTORS) as one:
        port = int(one.url.rsplit(":", 1)[1])
        for number in range(n_kills):
            await one.until(_has_spare, "there is a spare: this is no crash loop")
            asked = asyncio.create_task(
                run_ask(one.session, one.url, ask_fake(f"flooded {number}", N_TOKENS), str(number))
            )
            before = generated(await one.figures())
            await one.until(lambda now, n=before: generated(now) > n + 5, "the stream has begun")
            with flood(port) as connections:
                await one.until(lambda _: len(connections) >= N_HELD, "the flood is there")
                took.append(await _kill(one))
            report.wrong += check(await asked, [])
        log = (one.service.runtime.logs / "front.log").read_text()
        report.row("starts that the system refused", str(log.count("worker_not_started")))
        report.wrong += stop_and_look(one.service)
    report.row("ready again after the kill", spread(took))
    if max(took) > READY_WITHIN_S:
        report.wrong.append(f"ready only after {max(took):.1f} s")
    return report


def _has_spare(figures: Figures) -> bool:
    return any(row["state"] == "warm" for row in figures["spares"])


async def _kill(one: Rig) -> float:
    row = await one.until_ready()
    started = time.monotonic()
    send(row["pid"], signal.SIGKILL)
    await one.until_ready(after=row["epoch"])
    return time.monotonic() - started


@contextlib.contextmanager
def flood(port: int) -> Iterator[list[socket.socket]]:
    """Idle connections from several addresses of the loopback; a closed one is replaced."""
    held: list[socket.socket] = []
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(PAUSE_S):
            held[:] = [one for one in held if _is_open(one)]
            with contextlib.suppress(OSError):
                while len(held) < N_CONNECTIONS and not ended.is_set():
                    own = (f"127.0.0.{2 + len(held) // PER_ADDRESS}", 0)
                    held.append(socket.create_connection(("127.0.0.1", port), 1.0, own))

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield held
    finally:
        ended.set()
        thread.join()
        for one in held:
            one.close()


def _is_open(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        if one.recv(1) != b"":
            return True
    except BlockingIOError:
        return True
    except OSError:
        pass
    one.close()
    return False
