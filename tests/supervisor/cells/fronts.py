"""Several fronts in one event loop, over a store in memory, and their clients."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gpufc.config import CellsConfig, Config, LimitsConfig
from supervisor.cells.records import Batch, Closed, decode_of_log, joined
from tests.supervisor.cells.memory import Connection, Server
from tests.supervisor.dispatch.fakes import FakeWorker, text_of, until
from tests.supervisor.http.conftest import Service
from tests.supervisor.http.durable_client import frames, plain

N_TOKENS = 40
LEASE_S = 0.1


class Cell(Service):
    """A front of the group, with a worker that steps when it is told to."""

    def __init__(self, server: Server, **keys: Any) -> None:
        self.store = Connection(server)
        settings = {"cells_lease_s": LEASE_S, "cells_batch_s": 0.0, "cells_pause_s": 0.05} | keys
        # tests read the headers before any text
        limits = LimitsConfig(first_byte_s=0.02, keepalive_comment_s=3600.0)
        super().__init__(Config(cells=CellsConfig(**settings), limits=limits), store=self.store)

    async def start(self, *, loads: bool = True) -> None:
        """Begin to listen, with a worker if it `loads`."""
        await super().start()
        assert self.cells is not None
        self.cells.start()
        if loads:
            self.worker = self.new_worker()

    def new_worker(self, fingerprint: str = "abc123") -> FakeWorker:
        worker = self.fleet.start_worker(auto=False, fingerprint=fingerprint)
        worker.n_tokens = N_TOKENS
        return worker

    def die(self) -> None:
        """As if by SIGKILL: nothing of it happens any more."""
        assert self.cells is not None
        self.store.cut()
        self.worker.lost = True
        for task in self.cells._tasks:
            task.cancel()

    @property
    def state(self) -> Any:
        assert self.cells is not None
        return self.cells.status()

    async def stop(self) -> None:
        assert self.cells is not None
        await self.cells.leave()
        await super().stop()


@contextlib.asynccontextmanager
async def cells(n: int, *, n_loaded: int | None = None, **keys: Any) -> AsyncIterator[list[Cell]]:
    """So many fronts. Those behind the first `n_loaded` have never had a worker. A client waits for
    the end of a dead front's lease however long the test's process stands still."""
    server = Server()
    async with contextlib.AsyncExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("supervisor.cells.cells.WAIT_LEASES", 60.0 / LEASE_S)
        made = []
        for number in range(n):
            cell = Cell(server, **keys)
            await cell.start(loads=n_loaded is None or number < n_loaded)
            stack.push_async_callback(cell.stop)
            made.append(cell)
        yield made


class Client:
    """Reads one durable stream event by event, and can go on at another front."""

    def __init__(self, **fields: Any) -> None:
        self.fields = {"stream": True, "n": 1} | fields
        self.events: list[tuple[str | None, str]] = []
        self.last: str | None = None

    @contextlib.asynccontextmanager
    async def at(self, cell: Cell) -> AsyncIterator["Reading"]:
        headers = {"Content-Type": "application/json", "Idempotency-Key": "key"}
        if self.last is not None:
            headers["Last-Event-ID"] = self.last
        async with cell.http.post(
            "/v1/completions", json={"prompt": "hello"} | self.fields, headers=headers
        ) as response:
            assert response.status == 200, await response.text()
            yield Reading(self, response.content)

    def took(self, found: list[tuple[str | None, str]]) -> None:
        for name, data in found:
            self.last = name or self.last
            self.events.append((name, data))

    @property
    def texts(self) -> list[str]:
        found = [""] * self.fields["n"]
        for index, text, _ in plain([one for one in self.events if "choices" in one[1]]):
            found[index] += text or ""
        return found

    @property
    def is_done(self) -> bool:
        return bool(self.events) and self.events[-1][1] == "[DONE]"


class Reading:
    def __init__(self, client: Client, content: asyncio.StreamReader) -> None:
        self._client, self._content, self._kept = client, content, b""

    async def some(self) -> bool:
        """Read whole events until there is at least one. False at the end."""
        while part := await self._content.readany():
            self._kept += part
            at = self._kept.rfind(b"\n\n") + 2
            found = frames(self._kept[:at]) if at > 1 else []
            if found:
                self._client.took(found)
                self._kept = self._kept[at:]
                return True
        return False

    async def until_text(self, n_chars: int) -> None:
        while sum(map(len, self._client.texts)) < n_chars:
            await self.some()

    async def all(self) -> None:
        while await self.some():
            pass


def stored(cell: Cell, run: str) -> list[Batch | Closed]:
    messages = [data for _, data in cell.store.server.of(f"log.{run}")]
    return [decode_of_log(data) for data in joined(messages)]


def whole(n: int = 1) -> list[str]:
    return [text_of("hello", N_TOKENS, choice) for choice in range(n)]


async def begun(cell: Cell, reading: Reading) -> None:
    """One step of the request, which its client has read."""
    await until(lambda: cell.worker.active)
    cell.worker.step()
    await reading.until_text(1)
