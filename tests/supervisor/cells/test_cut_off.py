"""Fronts that the store does not answer: what they write, and which events other fronts know."""

import pytest

from supervisor.cells.records import Closed
from tests.supervisor.cells.fronts import N_TOKENS, Client, begun, cells, stored, whole
from tests.supervisor.dispatch.fakes import until
from tests.supervisor.http.durable_client import ask, let_go


def tag_of(event: str) -> str:
    return event.partition("-")[0]


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
            assert tag_of(known) != tag_of(alone)
            let_go(a.worker)
            await reading.all()
            assert client.texts == whole()
            a.store.mend()
        await until(lambda: a.state.replicated == 0)
        for after in (known, alone):
            assert (await ask(b, after=after, **client.fields)).status == 200
        behind = f"{tag_of(known)}-{alone.partition('-')[2]}"
        for after in ("00000000-1", behind):  # no front has given these out
            for cell in (a, b):
                assert (await ask(cell, after=after, **client.fields)).status == 400


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


async def test_an_event_of_the_front_that_went_on_is_unknown_to_the_one_that_was_cut_off() -> None:
    async with cells(2) as (a, b):
        client, there = Client(max_tokens=N_TOKENS), Client(max_tokens=N_TOKENS)
        async with client.at(a) as reading:
            await begun(a, reading)
            known = client.last
            a.store.cut()
            a.worker.step()
            await until(lambda: b.worker.active)
            let_go(b.worker)
            await until(lambda: b.state.replicated == 0)
            a.store.mend()
            let_go(a.worker)
            await reading.all()
        await until(lambda: a.state.fenced_total == 1)
        async with there.at(b) as reading:
            await reading.all()
        assert known is not None
        assert there.last is not None
        assert tag_of(there.last) == tag_of(known)
        # the entries of the two are different behind the one that is stored
        for after, status in ((known, 200), (there.last, 400), (client.last, 200)):
            assert (await ask(a, after=after, **client.fields)).status == status


async def test_a_leader_of_the_store_that_lags_fences_nobody() -> None:
    async with cells(2, cells_pause_s=60.0, cells_lease_s=3600.0) as (a, b):
        client, run = Client(max_tokens=N_TOKENS), a.state.run
        async with client.at(a) as reading:
            await begun(a, reading)
            a.store.server.known = 0
            let_go(a.worker)
            await until(lambda: a.state.state == "waiting")
            a.store.server.known = None
            await reading.all()
        assert client.texts == whole()
        assert (a.state.fenced_total, a.state.run) == (0, run)
        assert (await ask(b, after=client.last, **client.fields)).status == 200


async def test_a_store_that_has_lost_its_records_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("supervisor.cells.writer.BEHIND_S", 0.0)
    async with cells(1, cells_pause_s=60.0) as (a,):
        client, run = Client(max_tokens=N_TOKENS), a.state.run
        async with client.at(a) as reading:
            await begun(a, reading)
            a.store.server.messages.clear()
            let_go(a.worker)
            await reading.all()
        assert client.texts == whole()
        assert (a.state.fenced_total, a.state.run != run) == (1, True)
        assert (await ask(a, key="later")).headers["x-gpufc-durable"] == "replicated"
