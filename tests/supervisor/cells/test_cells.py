"""Several fronts in one event loop, over a store in memory: deaths, partitions, drains."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gpufc.config import CellsConfig, Config, LimitsConfig
from gpufc.errors import Overloaded
from supervisor.cells.records import Batch, Closed, decode_of_log, joined, name_of
from supervisor.dispatch.durable import DurableKey
from tests.supervisor.cells.memory import Connection, Server
from tests.supervisor.dispatch.fakes import FakeWorker, text_of, until
from tests.supervisor.http.conftest import Answer, Service
from tests.supervisor.http.test_durable import ask, frames, let_go, plain

N_TOKENS = 40
LEASE_S = 0.1


class Cell(Service):
    """A front of the group, with a worker that steps when it is told to."""

    def __init__(self, server: Server, **keys: Any) -> None:
        self.store = Connection(server)
        settings = {"cells_lease_s": LEASE_S, "cells_batch_s": 0.0, "cells_pause_s": 0.05} | keys
        limits = LimitsConfig(first_byte_s=0.02)  # tests read the headers before any text
        super().__init__(Config(cells=CellsConfig(**settings), limits=limits), store=self.store)

    async def start(self) -> None:
        await super().start()
        assert self.cells is not None
        self.cells.start()
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
async def cells(n: int, **keys: Any) -> AsyncIterator[list[Cell]]:
    server = Server()
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for _ in range(n):
            cell = Cell(server, **keys)
            await cell.start()
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


@pytest.mark.parametrize("seed", range(20))
async def test_a_stream_goes_on_in_another_front_token_for_token(seed: int) -> None:
    chance = random.Random(seed)
    n = chance.choice([1, 1, 3])
    async with cells(2, cells_batch_s=chance.choice([0.0, 0.01])) as (a, b):
        a.worker.n_at_once, b.worker.n_at_once = chance.randint(1, 3), chance.randint(1, 3)
        client = Client(n=n, max_tokens=N_TOKENS, logprobs=chance.choice([None, 2]))
        async with client.at(a) as reading:
            await until(lambda: len(a.worker.active) == n)
            for _ in range(chance.randint(1, 8)):
                a.worker.step()
                if chance.random() < 0.5:
                    await reading.some()
            await reading.until_text(1)
            a.die()
        let_go(b.worker)
        while not client.is_done:
            async with client.at(b) as reading:
                if chance.random() < 0.3:
                    await reading.some()
                else:
                    await reading.all()
        assert client.texts == whole(n)
        assert b.state.taken_over_total == 1


async def test_it_goes_on_without_its_client_and_a_third_front_has_the_answer() -> None:
    async with cells(3) as (a, b, c):
        client = Client(max_tokens=N_TOKENS)
        async with client.at(a) as reading:
            await until(lambda: a.worker.active)
            a.worker.step()
            await reading.until_text(1)
            a.die()
        await until(lambda: b.worker.active or c.worker.active)
        owner, other = (b, c) if b.worker.active else (c, b)
        assert not other.worker.active
        let_go(owner.worker)
        await until(lambda: owner.state.replicated == 0)
        async with client.at(other) as reading:
            await reading.all()
        assert client.texts == whole()
        assert not other.worker.active


async def test_another_death_after_the_first_loses_nothing() -> None:
    async with cells(3) as (a, b, c):
        client = Client(max_tokens=N_TOKENS)

        async def one_step_and_death(cell: Cell) -> None:
            async with client.at(cell) as reading:
                await until(lambda: cell.worker.active)
                cell.worker.step()
                await reading.until_text(len(client.texts[0]) + 1)
                cell.die()

        await one_step_and_death(a)
        await until(lambda: b.worker.active or c.worker.active)
        second, third = (b, c) if b.worker.active else (c, b)
        await one_step_and_death(second)
        await until(lambda: third.worker.active)
        let_go(third.worker)
        async with client.at(third) as reading:
            await reading.all()
        assert client.texts == whole()


async def test_every_front_gives_the_same_finished_answer() -> None:
    async with cells(2) as (a, b):
        let_go(a.worker)
        first = await ask(a, stream=False)
        again = await ask(b, stream=False)
        assert first.body == again.body
        assert [one.headers["x-gpufc-durable"] for one in (first, again)] == ["replicated"] * 2
        assert not b.worker.sent
        assert (await ask(b, prompt="another")).status == 400


async def test_a_request_of_a_front_that_lives_is_a_503_elsewhere() -> None:
    async with cells(2) as (a, b):
        running = asyncio.create_task(ask(a, stream=False))
        await until(lambda: a.worker.active)
        refused = await ask(b, stream=False)
        assert (refused.status, refused.error["code"]) == (503, "overloaded")
        assert int(refused.headers["Retry-After"]) >= 1
        assert not b.worker.active
        let_go(a.worker)
        assert (await running).body == (await ask(b, stream=False)).body


async def test_a_front_that_is_cut_off_writes_no_more_and_no_text_comes_twice() -> None:
    async with cells(2) as (a, b):
        client, run = Client(max_tokens=N_TOKENS), a.state.run
        async with client.at(a) as reading:
            await until(lambda: a.worker.active)
            a.worker.step()
            await reading.until_text(1)
            a.store.cut()
            a.worker.step()
            await until(lambda: a.state.state == "waiting")
            await until(lambda: b.worker.active)  # it has taken the request over
            let_go(b.worker)
            await until(lambda: b.state.replicated == 0)
            a.store.mend()
            let_go(a.worker)
            await reading.all()
        assert client.texts == whole()
        await until(lambda: a.state.fenced_total == 1)
        assert [type(one) for one in stored(a, run)].count(Closed) == 1
        assert isinstance(stored(a, run)[-1], Closed)
        assert a.state.run != run
        there = Client(max_tokens=N_TOKENS)
        async with there.at(b) as reading:
            await reading.all()
        assert there.texts == whole()
        later = await ask(a, key="later")
        assert later.headers["x-gpufc-durable"] == "replicated"


async def test_events_of_a_front_that_went_on_alone_are_known_elsewhere_only_afterwards() -> None:
    async with cells(2, cells_lease_s=3600.0) as (a, b):
        client = Client(max_tokens=N_TOKENS)
        async with client.at(a) as reading:
            await until(lambda: a.worker.active)
            a.worker.step()
            await reading.until_text(1)
            known = client.last
            a.store.cut()
            a.worker.step()
            await until(lambda: a.state.state == "alone")
            a.worker.step()
            await reading.until_text(len(client.texts[0]) + 1)
            alone = client.last
            assert known is not None
            assert alone is not None
            assert known.partition("-")[0] != alone.partition("-")[0]
            let_go(a.worker)
            await reading.all()
            assert client.texts == whole()
            a.store.mend()
        await until(lambda: a.state.replicated == 0)
        for after in (known, alone):
            rest = await ask(b, after=after, stream=True, max_tokens=N_TOKENS, n=1)
            assert rest.status == 200
        assert (
            await ask(b, after="00000000-1", stream=True, max_tokens=N_TOKENS, n=1)
        ).status == 400


async def test_what_a_front_alone_has_sent_is_refused_by_the_one_that_goes_on() -> None:
    async with cells(2) as (a, b):
        client = Client(max_tokens=N_TOKENS)
        async with client.at(a) as reading:
            await until(lambda: a.worker.active)
            a.worker.step()
            await reading.until_text(1)
            a.store.cut()
            a.worker.step()
            await until(lambda: a.state.state == "alone")
            await reading.until_text(len(client.texts[0]) + 1)
            a.die()
        let_go(b.worker)
        refused = await ask(b, after=client.last, **client.fields)
        assert (refused.status, refused.error["param"]) == (400, "Last-Event-ID")
        again = Client(max_tokens=N_TOKENS)
        async with again.at(b) as reading:
            await reading.all()
        assert again.texts == whole()


@pytest.mark.parametrize("required", [False, True])
async def test_without_the_store_new_requests_are_local_or_refused(required: bool) -> None:
    async with cells(1, cells_required=required) as (a,):
        a.store.cut()
        let_go(a.worker)
        answer = await ask(a)
        if required:
            assert answer.status == 503
            assert (await a.complete()).status == 200
        else:
            assert (answer.status, answer.headers["x-gpufc-durable"]) == (200, "local")
            assert (await ask(a)).body == answer.body
            assert a.state.local_total == 1


async def test_a_lost_answer_of_the_store_delays_a_stream_and_repeats_nothing() -> None:
    async with cells(1, cells_pause_s=60.0) as (a,):
        client = Client(max_tokens=N_TOKENS)
        async with client.at(a) as reading:
            await until(lambda: a.worker.active)
            a.store.lose_answers = 2
            let_go(a.worker)
            await reading.all()
        assert client.texts == whole()
        assert (a.state.state, a.state.fenced_total) == ("owner", 0)


async def test_a_front_that_leaves_hands_its_requests_over_at_once() -> None:
    async with cells(2, cells_lease_s=3600.0) as (a, b):
        assert a.cells is not None
        client = Client(max_tokens=N_TOKENS)
        async with client.at(a) as reading:
            await until(lambda: a.worker.active)
            a.worker.step()
            await reading.until_text(1)
            await a.cells.leave()
            a.dispatcher.drain()
            a.dispatcher.end_all(Overloaded("stopping"))
            await reading.all()
        assert any("overloaded" in data for _, data in client.events)
        let_go(b.worker)
        client.events = [one for one in client.events if "choices" in one[1]]
        async with client.at(b) as reading:
            await reading.all()
        assert client.texts == whole()


async def test_another_model_does_not_go_on_with_it() -> None:
    async with cells(2) as (a, b):
        b.worker.die()
        b.new_worker("another")
        client = Client(max_tokens=N_TOKENS)
        async with client.at(a) as reading:
            await until(lambda: a.worker.active)
            a.worker.step()
            await reading.until_text(1)
            a.die()
        await until(lambda: b.state.orphans == 1)
        assert b.state.taken_over_total == 0
        right = b.new_worker()
        let_go(right)
        async with client.at(b) as reading:
            await reading.all()
        assert client.texts == whole()


async def test_a_deleted_request_is_forgotten_everywhere() -> None:
    async with cells(2) as (a, b):
        let_go(a.worker)
        let_go(b.worker)
        first = await ask(a)

        async def delete(cell: Cell) -> Answer:
            async with cell.http.delete(
                "/v1/requests", headers={"Idempotency-Key": "key"}
            ) as response:
                return Answer(response.status, response.headers, await response.read())

        name = name_of(DurableKey("anonymous", "key"))
        assert (await delete(a)).status == 200
        await until(lambda: not a.store.server.of(f"request.{name}"))
        assert (await ask(b)).json["id"] != first.json["id"]
        assert (await delete(a)).status == 200  # b has it
        assert (await delete(a)).status == 404


async def test_a_client_of_a_request_that_never_began_gets_it_from_another_front() -> None:
    async with cells(2) as (a, b):
        running = asyncio.create_task(ask(a, stream=False))
        await until(lambda: a.worker.active)
        a.die()
        running.cancel()
        let_go(b.worker)
        assert (await ask(b, stream=False)).json["choices"][0]["text"] == text_of("hello", 16)


async def test_a_request_with_an_owner_that_is_gone_waits_for_the_lease() -> None:
    async with cells(2) as (a, b):
        let_go(b.worker)
        client = Client(max_tokens=N_TOKENS)
        async with client.at(a) as reading:
            await until(lambda: a.worker.active)
            a.worker.step()
            await reading.until_text(1)
            a.die()
            async with client.at(b) as again:  # before the lease has ended
                await again.all()
        assert client.texts == whole()


async def test_a_front_that_was_idle_for_long_begins_a_new_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("supervisor.cells.writer.RENEW_S", 0.0)
    async with cells(1) as (a,):
        let_go(a.worker)
        assert (await ask(a)).status == 200
        assert a.cells is not None
        outbox, run = a.cells._writer.outbox, a.state.run
        await until(lambda: not (len(outbox) or outbox.has_work))
        assert stored(a, run)
        a.store.server.messages.clear()  # they have expired
        assert (await ask(a, key="later")).headers["x-gpufc-durable"] == "replicated"
        assert a.state.run != run
        assert a.state.fenced_total == 0
