"""Several fronts: one dies or is drained, and the others go on with its requests."""

import asyncio
import random

import pytest

from gpufc.errors import Overloaded
from supervisor.cells.records import name_of
from supervisor.dispatch.durable import DurableKey
from tests.supervisor.cells.fronts import N_TOKENS, Cell, Client, cells, stored, whole
from tests.supervisor.dispatch.fakes import text_of, until
from tests.supervisor.http.conftest import Answer
from tests.supervisor.http.durable_client import ask, let_go


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


@pytest.mark.parametrize("n_turns", range(6))
async def test_a_front_may_be_told_to_end_in_any_turn_of_the_loop(n_turns: int) -> None:
    async with cells(2) as (a, b):
        assert a.cells is not None
        assert b.cells is not None
        await until(lambda: a.state.others == 1)
        b.cells._watcher.say_goodbye()  # wakes the task that watches
        for _ in range(n_turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(60.0):
            await a.cells.leave()


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
