"""One key for several requests, one after another: none has the records of another."""

from tests.supervisor.cells.fronts import N_TOKENS, Cell, Client, begun, cells
from tests.supervisor.dispatch.fakes import text_of, until
from tests.supervisor.http.durable_client import let_go


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
