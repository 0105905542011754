"""One key for several requests, one after another: none has the records of another."""

import pytest

from tests.supervisor.cells.fronts import N_TOKENS, Cell, Client, begun, cells, whole
from tests.supervisor.dispatch.fakes import text_of, until
from tests.supervisor.http.durable_client import ask, let_go


async def delete(cell: Cell) -> None:
    async with cell.http.delete("/v1/requests", headers={"Idempotency-Key": "key"}) as response:
        assert response.status == 200


async def test_a_request_goes_on_without_the_text_of_one_that_was_deleted_before() -> None:
    async with cells(2) as (a, b):
        first = Client(max_tokens=N_TOKENS, prompt="first")
        async with first.at(a) as reading:
            await begun(a, reading)
            a.worker.step()
            await delete(a)
        await until(lambda: not a.state.replicated)
        second = Client(max_tokens=N_TOKENS, prompt="other")
        async with second.at(a) as reading:
            await begun(a, reading)
            a.die()
        await until(lambda: b.state.taken_over_total == 1)
        let_go(b.worker)
        async with second.at(b) as reading:
            await reading.all()
        assert second.texts == [text_of("other", N_TOKENS, 0)]


async def test_a_request_that_another_front_deletes_ends_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("supervisor.cells.writer.BEHIND_S", 0.05)
    async with cells(2, cells_pause_s=60.0, cells_lease_s=3600.0) as (a, b):
        client, run = Client(max_tokens=N_TOKENS), a.state.run
        async with client.at(a) as reading:
            await begun(a, reading)
            await delete(b)
            let_go(a.worker)
            await reading.all()
        assert client.texts == whole()
        assert (a.state.fenced_total, a.state.run, a.state.state) == (0, run, "owner")
        assert (await ask(a, key="later")).headers["x-gpufc-durable"] == "replicated"
