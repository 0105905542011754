"""Which front goes on with a request, and for which key."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from gpufc.protocol import FinishReason
from supervisor.dispatch.request import ANONYMOUS
from supervisor.dispatch.stream_log import StreamLog
from tests.supervisor.cells.fronts import N_TOKENS, Cell, Client, begun, cells, whole
from tests.supervisor.dispatch.fakes import MODEL, request, tokens_of, until
from tests.supervisor.http.durable_client import ask, let_go


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


async def test_a_front_with_another_model_leaves_the_request_to_one_that_fits() -> None:
    async with cells(3) as (a, b, c):
        b.worker.die()
        b.new_worker("another")
        c.store.cut()
        client = Client(max_tokens=N_TOKENS)
        async with client.at(a) as reading:
            await begun(a, reading)
            a.die()
        await until(lambda: b.state.orphans == 1)
        with pytest.raises(AssertionError, match="another file of the model"):
            async with client.at(b):
                pass
        assert b.state.taken_over_total == 0
        c.store.mend()
        await until(lambda: c.state.taken_over_total == 1)
        async with client.at(c) as reading:
            let_go(c.worker)
            await reading.all()
        assert client.texts == whole()


async def test_a_request_that_has_ended_several_fronts_waits_for_its_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("supervisor.cells.reviving.MOST_UNASKED", 1)
    async with cells(3) as (a, b, c):
        client = Client(max_tokens=N_TOKENS)
        async with client.at(a) as reading:
            await begun(a, reading)
            c.store.cut()
            a.die()
        await until(lambda: b.state.taken_over_total == 1)
        c.store.mend()
        b.die()
        await until(lambda: c.state.orphans == 1)
        async with client.at(c) as reading:
            let_go(c.worker)
            await reading.all()
        assert c.state.taken_over_total == 1
        assert client.texts == whole()


@pytest.mark.parametrize("fingerprint", ["another", "abc123"])
async def test_a_front_that_has_not_loaded_the_model_claims_once_it_knows_the_file(
    fingerprint: str,
) -> None:
    async with cells(2, n_loaded=1) as (a, b):
        client = Client(max_tokens=N_TOKENS)
        async with client.at(a) as reading:
            await begun(a, reading)
            a.die()
        asking = asyncio.create_task(ask(b, after=client.last, **client.fields))
        await until(lambda: b.dispatcher.group(MODEL).usage().n_waiting)
        assert b.state.taken_over_total == 0
        let_go(b.new_worker(fingerprint))
        answer = await asking
        fits = fingerprint == "abc123"
        assert (answer.status, b.state.taken_over_total) == ((200, 1) if fits else (503, 0))
        assert b.state.orphans == (0 if fits else 1)


class Account:
    """Implements `request.Account`; notes what it is told."""

    def __init__(self) -> None:
        self.n_open = 0
        self.n_tokens: list[int] = []

    def note_request(self) -> None:
        raise AssertionError("the client has asked another front")

    def require_room(self, n_sequences: int) -> None:
        raise AssertionError("it was accepted by another front")

    def open(self, n_sequences: int) -> None:
        self.n_open += n_sequences

    def close(self, n_sequences: int, n_tokens: int, seconds: float) -> None:
        self.n_open -= n_sequences
        self.n_tokens.append(n_tokens)


def accounts(cell: Cell) -> dict[str, Account]:
    """The accounts of a front's keys: that of the client without one."""
    assert cell.cells is not None
    made = {ANONYMOUS.name: Account()}
    cell.cells._reviving._account_of = made.get
    return made


async def test_a_request_that_was_taken_over_is_charged_to_its_key_as_a_whole() -> None:
    async with cells(2) as (a, b):
        account = accounts(b)[ANONYMOUS.name]
        client = Client(max_tokens=N_TOKENS)
        async with client.at(a) as reading:
            await begun(a, reading)
            a.die()
        await until(lambda: b.worker.active)
        assert (account.n_open, account.n_tokens) == (1, [])
        let_go(b.worker)
        async with client.at(b) as reading:
            await reading.all()
        n_prompt = len(tokens_of(request("hello").prompts[0]))
        assert (account.n_open, account.n_tokens) == (0, [n_prompt + N_TOKENS])


async def test_a_request_whose_sequences_had_all_ended_leaves_nothing_open() -> None:
    def restore(logs: Sequence[StreamLog]) -> None:
        for log in logs:
            log.tokens.extend([1, 2, 3])
            log.finish = FinishReason.STOP

    async with cells(1) as (a,):
        account = Account()
        principal = msgspec.structs.replace(ANONYMOUS, account=account)
        a.dispatcher.go_on(request(n=2), principal, restore)
        assert (account.n_open, account.n_tokens) == (0, [6])
