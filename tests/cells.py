"""Several fronts with one NATS server, as processes on this machine."""

import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from tests.integration.fake_service import FAKE
from tests.ports import free_ports
from tests.service import Service, service, wait_for

FOUND = shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

NATS_LOG = "Server is ready"


def why_not() -> str | None:
    """Why these tests cannot run; None if they can."""
    if FOUND is None:
        return "nats-server is missing (apt install nats-server)"
    try:
        import nats  # noqa: F401
    except ImportError:
        return "NATS' client is missing (pip install 'gpufc[cells]')"
    return None


needs_nats = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


class Nats:
    """A server with JetStream, on a port that stays over restarts."""

    def __init__(self, folder: Path, *arguments: str, port: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._arguments = arguments
        self._port = str(port or -1)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        log, ports = self._folder / "log", self._folder / "ports"
        ports.mkdir(exist_ok=True)
        for old in ports.iterdir():
            old.unlink()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *(FOUND or "", "-js", "-sd", str(self._folder / "store")),
                    *("-a", "127.0.0.1", "-p", self._port, "--ports_file_dir", str(ports)),
                    *self._arguments,
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_for(lambda: NATS_LOG in log.read_text(), why="NATS is ready")
        if self._port == "-1":
            line = wait_for(
                lambda: [
                    one
                    for one in log.read_text().splitlines()
                    if "Listening for client connections on" in one
                ],
                why="NATS listens",
            )[0]
            self._port = line.rpartition(":")[2].strip()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)
            self.process = None

    def forget(self) -> None:
        """Lose all records. The server does not run."""
        shutil.rmtree(self._folder / "store")


@contextlib.contextmanager
def nats_server(folder: Path, *arguments: str) -> Iterator[Nats]:
    """A server with JetStream. Its records are in the folder."""
    made = Nats(folder, *arguments)
    try:
        yield made
    finally:
        made.kill()


class NatsCluster:
    """Servers of one cluster, each with JetStream, by name."""

    def __init__(self, folder: Path, n: int) -> None:
        routes, ports = free_ports(n), free_ports(n)
        known = ",".join(f"nats://127.0.0.1:{route}" for route in routes)
        self.servers: dict[str, Nats] = {}
        for number, (route, port) in enumerate(zip(routes, ports, strict=True)):
            name = f"n{number}"
            own = ("-n", name, "--cluster_name", "c", "--cluster", f"nats://127.0.0.1:{route}")
            self.servers[name] = Nats(folder / name, *own, "--routes", known, port=port)

    @property
    def addresses(self) -> str:
        """As `cells_nats` has them."""
        return ",".join(f"nats://{one.address}" for one in self.servers.values())

    async def leader(self, stream: str) -> str | None:
        """The name of the server that leads a stream; None while there is none, or not all of its
        others have its messages."""
        import nats

        client = await nats.connect(self.addresses.split(","), allow_reconnect=False)
        try:
            found = (await client.jetstream(timeout=1.0).stream_info(stream)).cluster
        except (nats.errors.Error, OSError):
            return None
        finally:
            await client.close()
        is_whole = found is not None and all(one.current for one in found.replicas or ())
        return found.leader if found is not None and is_whole else None

    def kill(self) -> None:
        for one in self.servers.values():
            one.kill()


@contextlib.contextmanager
def nats_cluster(folder: Path, n: int = 3) -> Iterator[NatsCluster]:
    """A cluster of NATS. Its records are in the folder."""
    made = NatsCluster(folder, n)
    try:
        yield made
    finally:
        made.kill()


@contextlib.contextmanager
def front(
    folder: Path,
    name: str,
    nats: str,
    lease_s: float = 1.5,
    script: str = "step_ms=5",
    connects: bool = True,
    **keys: object,
) -> Iterator[Service]:
    """A front of the group over the scripted engine. `nats` is the address by which it reaches the
    server; `keys` are more keys of its configuration."""
    settings = {"cells_nats": f"nats://{nats}", "cells_lease_s": lease_s} | keys
    environ = FAKE | {"GPUFC_FAKE_SCRIPT": script}
    environ |= {f"GPUFC_{key.upper()}": str(value) for key, value in settings.items()}
    with service(folder / name, environ=environ) as started:
        if connects:
            wait_for(lambda: started.status()["cells"]["connected"], why="the front reaches NATS")
        yield started


class Reader:
    """Reads one durable stream as an event source does, from any front: whole events, and the last
    id. `tags` are those of its ids, `longest_gap_s` is the longest time between two texts."""

    def __init__(self, prompt: str, n_tokens: int, key: str | None = None) -> None:
        self.body = {"prompt": prompt, "max_tokens": n_tokens, "stream": True}
        self.headers = {"Idempotency-Key": key or prompt}
        self.texts: list[str] = []
        self.done = False
        self.status = 0
        self.refusal = ""
        self.answer_headers: dict[str, str] = {}
        self.tags: set[str] = set()
        self.longest_gap_s = 0.0
        self._text_at: float | None = None

    @property
    def text(self) -> str:
        return "".join(self.texts)

    async def read(self, url: str, n_events: int | None = None) -> None:
        """Read so many more events with text, all without a number. A front that dies, or refuses,
        ends the reading: `status` is the answer's."""
        left, self.refusal = n_events, ""
        async with aiohttp.ClientSession() as session:
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                async with session.post(
                    f"{url}/v1/completions", json=self.body, headers=self.headers
                ) as answer:
                    self.status, self.answer_headers = answer.status, dict(answer.headers)
                    if answer.status != 200:
                        self.refusal = await answer.text()
                        return
                    buffer = b""
                    while left is None or left > 0:
                        part = await answer.content.readany()
                        if not part:
                            return
                        *frames, buffer = (buffer + part).split(b"\n\n")
                        for frame in frames:
                            left = self._event(frame.decode(), left)

    def _event(self, frame: str, left: int | None) -> int | None:
        if frame.startswith(":") or left == 0:
            return left
        fields = dict(line.split(": ", 1) for line in frame.split("\n"))
        if "id" in fields:
            self.tags.add(fields["id"].partition("-")[0])
            self.headers["Last-Event-ID"] = fields["id"]
        if fields["data"] == "[DONE]":
            self.done = not self.refusal  # an error ends a stream with it, too
            return left
        chunk = msgspec.json.decode(fields["data"])
        if "choices" not in chunk:
            self.refusal = fields["data"]
            return left
        texts = [choice["text"] for choice in chunk["choices"]]
        self.texts += texts
        if any(texts):
            now = time.monotonic()
            self.longest_gap_s = max(self.longest_gap_s, now - (self._text_at or now))
            self._text_at = now
        return left if left is None or not any(texts) else left - 1


async def finish(reader: Reader, url: str) -> None:
    """Read the rest as a client does that tries again after a refusal."""
    async with asyncio.timeout(120):
        while not reader.done:
            await reader.read(url)
            assert reader.status in (200, 503), reader.refusal


def show_gaps(what: str, gaps: list[float]) -> None:
    """The figures that DESIGN.md quotes."""
    print(
        f"{what}: {len(gaps)} streams, longest gap {statistics.median(gaps):.2f} s (median),"
        f" {max(gaps):.2f} s (most), load {os.getloadavg()[0]:.1f}"
    )
