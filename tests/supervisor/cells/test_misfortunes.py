"""Several things go wrong at once: lost answers, late looks, records that cannot be read."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gpufc.errors import Overloaded
from supervisor.cells.port import Away
from supervisor.dispatch.durable import DurableRequest
from tests.supervisor.cells.test_cells import N_TOKENS, Cell, Client, Reading, ask, cells, whole
from tests.supervisor.dispatch.fakes import until
from tests.supervisor.http.test_durable import let_go


async def begun(cell: Cell, reading: Reading) -> None:
    """One step of the request, which its client has read."""
    await until(lambda: cell.worker.active)
    cell.worker.step()
    await reading.until_text(1)


def request_of(cell: Cell) -> DurableRequest:
    """The one durable request that a front has."""
    assert cell.cells is not None
    durable = cell.cells._durable
    (found,) = [*durable._running.values(), *durable._finished.values()]
    return found


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
        let_go(c.worker)
        async with client.at(c) as reading:
            await reading.all()
        assert client.texts == whole()
