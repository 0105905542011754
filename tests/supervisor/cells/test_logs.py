"""The logs of fronts that have died: in which order they are read, and what is kept of them."""

from tests.supervisor.cells.fronts import N_TOKENS, Client, begun, cells, stored, whole
from tests.supervisor.cells.memory import Server
from tests.supervisor.dispatch.fakes import until
from tests.supervisor.http.durable_client import let_go


def logs_of(server: Server) -> dict[str, int]:
    """How many messages each log has."""
    names = [name for _, name, _ in server.messages if name.startswith("log.")]
    return {name: names.count(name) for name in names}


async def test_a_log_without_open_requests_is_one_message_soon() -> None:
    async with cells(2) as (a, b):
        client, run = Client(max_tokens=N_TOKENS), a.state.run
        async with client.at(a) as reading:
            await begun(a, reading)
            a.worker.step()
            a.worker.step()
            await until(lambda: len(stored(a, run)) > 1)
            a.die()
        await until(lambda: b.state.taken_over_total == 1)
        assert logs_of(a.store.server)[f"log.{run}"] > 1  # a third front may need it
        let_go(b.worker)
        async with client.at(b) as reading:
            await reading.all()
        assert client.texts == whole()
        await until(lambda: logs_of(a.store.server)[f"log.{run}"] == 1)


async def test_a_front_that_starts_later_shortens_the_log_of_two_deaths_ago() -> None:
    async with cells(3) as (a, b, c):
        c.store.cut()
        client, run = Client(max_tokens=N_TOKENS), a.state.run
        async with client.at(a) as reading:
            await begun(a, reading)
            a.worker.step()
            await until(lambda: len(stored(a, run)) > 1)
            a.die()
        assert b.cells is not None
        b.cells._writer.settled = lambda _name: None  # it dies before it has done so
        let_go(b.worker)
        async with client.at(b) as reading:
            await reading.all()
        b.die()
        c.store.mend()
        await until(lambda: logs_of(a.store.server)[f"log.{run}"] == 1)
        async with client.at(c) as reading:
            await reading.all()
        assert client.texts == whole()
        assert c.state.taken_over_total == 0


async def test_the_front_that_has_just_died_does_not_wait_for_old_logs() -> None:
    async with cells(2) as (a, b):
        assert b.cells is not None
        await until(lambda: b.state.others == 1)
        client, read, order = Client(max_tokens=N_TOKENS), b.store.read, list[str]()
        old = [f"log.{number}" for number in range(20)]

        async def noted(subject: str, after: int = 0) -> list[tuple[int, bytes]]:
            if subject.startswith("log."):
                order.append(subject)
            elif subject.startswith("request.") and b.state.taken_over_total == 0:
                order.append("request")
            return await read(subject, after)

        async with client.at(a) as reading:
            await begun(a, reading)
            dead = f"log.{a.state.run}"
            for name in old:
                b.cells._watcher.leases.left(name.removeprefix("log."))  # due at once
            b.cells._watcher.leases.left(a.state.run)
            b.store.read = noted  # type: ignore[method-assign]
            a.die()
        await until(lambda: b.state.taken_over_total == 1)
        assert order[0] == dead
        assert "request" in order[: len(old)]
        let_go(b.worker)
        async with client.at(b) as reading:
            await reading.all()
        assert client.texts == whole()
