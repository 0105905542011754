"""Several things go wrong at once: lost answers, late looks, records that cannot be read."""

import asyncio
from typing import Any

import pytest

from gpufc.config import CellsConfig
from gpufc.errors import Overloaded
from supervisor.cells.port import Away
from supervisor.cells.records import (
    Batch,
    Claimed,
    decode_of_request,
    encode,
    joined,
    name_of,
    split,
)
from supervisor.cells.state import Known
from supervisor.cells.watcher import Orphan
from supervisor.cells.writer import Writer
from supervisor.dispatch.durable import DurableKey, DurableRequest
from supervisor.dispatch.durable_ask import DurableAsk
from tests.supervisor.cells.fronts import N_TOKENS, Cell, Client, begun, cells, whole
from tests.supervisor.cells.memory import Connection, Server
from tests.supervisor.dispatch.fakes import until
from tests.supervisor.http.durable_client import ask, let_go

NAME = name_of(DurableKey("anonymous", "key"))


def request_of(cell: Cell) -> DurableRequest:
    """The one durable request that a front has."""
    assert cell.cells is not None
    durable = cell.cells._durable
    (found,) = [*durable._running.values(), *durable._finished.values()]
    return found


def text_of_request(cell: Cell) -> str:
    return "".join(request_of(cell).stream.logs[0].texts)


@pytest.mark.parametrize("is_first_last", [False, True])
async def test_a_front_that_sees_two_deaths_at_once_goes_on_from_the_later_log(
    is_first_last: bool,
) -> None:
    async with cells(3) as (a, b, c):
        client, first = Client(max_tokens=N_TOKENS), a.state.run
        async with client.at(a) as reading:
            await begun(a, reading)
            c.store.cut()
            a.die()
        await until(lambda: b.state.taken_over_total == 1)
        async with client.at(b) as reading:
            await until(lambda: b.worker.active)
            for _ in range(10):
                b.worker.step()
            await reading.until_text(len(client.texts[0]) + 20)
            b.die()
        runs = [first, b.state.run]
        if is_first_last:
            runs.reverse()

        async def listed() -> list[str]:
            return runs

        assert c.cells is not None
        c.cells._watcher.leases._runs.clear()
        c.store.runs = listed  # type: ignore[method-assign]
        c.store.mend()
        await until(lambda: c.state.taken_over_total == 1)
        assert text_of_request(c) == client.texts[0]  # all that the client has, before any step
        async with client.at(c) as reading:
            let_go(c.worker)
            await reading.all()
        assert client.texts == whole()


def lose_one_answer(cell: Cell, *, first: bool) -> None:
    """The store keeps the next record of a request, and says nothing. `first`: its first one."""
    append = cell.store.append
    left = [None]

    async def lossy(subject: str, data: bytes, expected: int) -> int:
        number = await append(subject, data, expected)
        if left and subject.startswith("request.") and first == (expected == 0):
            left.pop()
            raise Away("no answer")
        return number

    cell.store.append = lossy  # type: ignore[method-assign]


async def test_a_claim_whose_answer_was_lost_is_gone_on_with() -> None:
    async with cells(2) as (a, b):
        lose_one_answer(b, first=False)
        client = Client(max_tokens=N_TOKENS)
        async with client.at(a) as reading:
            await begun(a, reading)
            a.die()
        await until(lambda: b.state.taken_over_total == 1)
        let_go(b.worker)
        async with client.at(b) as reading:
            await reading.all()
        assert client.texts == whole()
        messages = [data for _, data in b.store.server.of(f"request.{NAME}")]
        records = [decode_of_request(data) for data in joined(messages)]
        assert sum(isinstance(one, Claimed) for one in records) == 1


async def test_a_claim_whose_beginning_failed_is_gone_on_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with cells(2) as (a, b):
        assert b.cells is not None
        running, n_calls = b.cells._reviving.running, 0

        def at_the_second_call(*args: Any) -> DurableRequest:
            nonlocal n_calls
            n_calls += 1
            if n_calls == 1:
                raise Overloaded("full", retry_after_s=1.0)
            return running(*args)

        monkeypatch.setattr(b.cells._reviving, "running", at_the_second_call)
        async with Client(max_tokens=N_TOKENS).at(a) as reading:
            await begun(a, reading)
            a.die()
        await until(lambda: b.state.taken_over_total == 1)
        assert (n_calls, b.state.orphans) == (2, 0)


async def test_a_request_whose_opening_was_not_answered_has_ids_that_no_other_front_takes() -> None:
    async with cells(2) as (a, b):
        lose_one_answer(a, first=True)
        client = Client(max_tokens=N_TOKENS)
        async with client.at(a) as reading:
            await begun(a, reading)
            found = request_of(a)
            assert (found.is_replicated, len(found.tags)) == (False, 1)
            assert found.tag != found.stream.request.id[:8]
            a.die()
        let_go(b.worker)
        refused = await ask(b, after=client.last, **client.fields)
        assert (refused.status, refused.error["param"]) == (400, "Last-Event-ID")


async def test_a_front_that_stops_while_the_store_is_away_sends_no_unstored_text() -> None:
    async with cells(2, cells_pause_s=60.0) as (a, b):
        assert a.cells is not None
        client = Client(max_tokens=N_TOKENS)
        async with client.at(a) as reading:
            await begun(a, reading)
            had = client.texts
            a.store.cut()
            for _ in range(6):
                a.worker.step()
            await a.cells.leave()
            a.dispatcher.drain()
            a.dispatcher.end_all(Overloaded("stopping"))
            await reading.all()
        client.events = [one for one in client.events if "choices" in one[1]]
        assert client.texts == had
        let_go(b.worker)
        await until(lambda: b.state.taken_over_total == 1)
        async with client.at(b) as reading:
            await reading.all()
        assert client.texts == whole()


async def test_an_answer_that_is_whole_is_told_though_its_front_stops_without_the_store() -> None:
    async with cells(1, cells_pause_s=60.0) as (a,):
        assert a.cells is not None
        client = Client(max_tokens=N_TOKENS)
        async with client.at(a) as reading:
            await begun(a, reading)
            a.store.cut()
            let_go(a.worker)
            await until(lambda: request_of(a).is_over)
            await a.cells.leave()
            await reading.all()
        assert client.texts == whole()
        assert not request_of(a).is_replicated


async def test_an_end_whose_answer_was_lost_is_stored_once() -> None:
    async with cells(1, cells_pause_s=60.0) as (a,):
        lose_one_answer(a, first=False)
        let_go(a.worker)
        assert (await ask(a)).status == 200
        found = request_of(a)
        assert (found.is_replicated, len(found.tags)) == (True, 1)
        assert len(a.store.server.of(f"request.{NAME}")) == 2


async def test_a_request_that_is_dropped_while_another_one_is_purged_is_purged_too() -> None:
    server = Server()
    writer = Writer(Connection(server), CellsConfig())
    for name in "xy":
        server.append(f"request.{name}", b"", 0)
    writer.outbox.dropped.append(("x", 1))
    writing = asyncio.create_task(writer._write())
    await asyncio.sleep(0)
    writer.outbox.dropped.append(("y", 2))
    await writing
    assert server.messages == []


async def test_a_purge_leaves_the_new_records_of_the_same_key() -> None:
    server = Server()
    writer = Writer(Connection(server), CellsConfig())
    server.append("request.x", b"old", 0)
    writer.outbox.dropped.append(("x", 1))
    server.append("request.x", b"new", 1)
    await writer._write()
    assert server.of("request.x") == [(2, b"new")]


async def test_a_request_that_follows_its_deletion_is_durable() -> None:
    async with cells(1) as (a,):
        purge = a.store.purge

        async def slow(subject: str, before: int | None = None) -> None:
            await asyncio.sleep(0.02)
            await purge(subject, before)

        a.store.purge = slow  # type: ignore[method-assign]
        let_go(a.worker)
        first = await ask(a)
        async with a.http.delete("/v1/requests", headers={"Idempotency-Key": "key"}) as response:
            assert response.status == 200
        second = await ask(a)
        assert second.json["id"] != first.json["id"]
        await asyncio.sleep(0.1)
        assert request_of(a).is_replicated
        assert len(a.store.server.of(f"request.{NAME}")) == 2


async def test_a_deletion_while_the_store_is_away_is_made_up_for() -> None:
    async with cells(1, cells_pause_s=60.0) as (a,):
        let_go(a.worker)
        await ask(a)
        a.store.cut()
        async with a.http.delete("/v1/requests", headers={"Idempotency-Key": "key"}) as response:
            assert response.status == 200
        assert a.state.state == "waiting"
        a.store.mend()
        await until(lambda: not a.store.server.of(f"request.{NAME}"))
        await until(lambda: a.state.state == "owner")


async def test_room_is_made_before_a_batch_is_stored() -> None:
    async with cells(1, cells_pause_s=60.0) as (a,):
        append = a.store.append
        server = a.store.server
        old = server.append("request.old", b"", 0)

        async def append_if_there_is_room(subject: str, data: bytes, expected: int) -> int:
            if server.of("request.old") and subject.startswith("log."):
                raise Away("maximum bytes exceeded")
            return await append(subject, data, expected)

        a.store.append = append_if_there_is_room  # type: ignore[method-assign]
        assert a.cells is not None
        client = Client(max_tokens=N_TOKENS)
        async with client.at(a) as reading:
            await until(lambda: a.worker.active)
            a.cells._writer.outbox.dropped.append(("old", old))
            let_go(a.worker)
            await reading.all()
        assert client.texts == whole()


async def test_a_log_that_cannot_be_read_holds_up_no_other() -> None:
    async with cells(2) as (a, b):
        a.store.server.append("log.garbage", b"\3\xc1", 0)
        await until(lambda: b.cells is not None and b.cells._watcher._unreadable)
        async with Client(max_tokens=N_TOKENS).at(a) as reading:
            await begun(a, reading)
            a.die()
        await until(lambda: b.state.taken_over_total == 1)


async def test_an_orphan_that_cannot_be_read_holds_up_no_other() -> None:
    async with cells(1) as (a,):
        assert a.cells is not None
        a.store.server.append("request.x", b"\3\xc1", 0)
        a.cells._watcher.orphans |= {"x": Orphan("gone", Known()), "y": Orphan("gone", Known())}
        await a.cells._adopt()
        assert a.state.orphans == 0


async def test_a_client_that_waits_while_its_request_is_taken_over_brings_its_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with cells(1) as (a,):
        assert a.cells is not None
        find_or_start = a.cells.find_or_start

        async def taken_over_meanwhile(asked: DurableAsk) -> DurableRequest | None:
            found = await find_or_start(asked)
            assert found is not None
            found.lacks_reading = True
            return found

        monkeypatch.setattr(a.cells, "find_or_start", taken_over_meanwhile)
        let_go(a.worker)
        assert (await ask(a)).status == 200
        assert not request_of(a).lacks_reading


async def test_a_long_log_leaves_the_event_loop_its_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.cells.watcher.AT_ONCE", 1)
    async with cells(1) as (a,):
        assert a.cells is not None
        last = 0
        for number in range(1, 21):
            (data,) = split(encode(Batch(number, ())), a.store.most_bytes)
            last = a.store.server.append("log.old", data, last)
        reading = asyncio.create_task(a.cells._watcher._read("old"))
        n_turns = 0
        while not reading.done():
            n_turns += 1
            await asyncio.sleep(0)
        assert (await reading)[0] == last
        assert n_turns >= 20
