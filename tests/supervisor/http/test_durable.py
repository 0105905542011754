"""Durable requests over HTTP: joined, repeated, resumed, refused."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web

from gpufc.config import LimitsConfig
from gpufc.errors import Overloaded
from gpufc.protocol import Finished, FinishReason
from supervisor.dispatch.request import Principal, Scope
from supervisor.http.edge.context import SERVICES
from supervisor.http.edge.middleware import Authenticator
from supervisor.http.edge.server import FrontRunner
from supervisor.http.edge.streams import COMMENT
from supervisor.http.routes import create_web_app
from tests.supervisor.dispatch.fakes import FAILED, FakeWorker, generates, text_of, until
from tests.supervisor.http.conftest import Answer, Service, running

JSON = {"Content-Type": "application/json"}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
PATHS = ["/v1/completions", "/v1/chat/completions"]


async def ask(
    service: Service,
    *,
    key: str | None = "key",
    after: str | None = None,
    path: str = "/v1/completions",
    headers: dict[str, str] | None = None,
    **fields: Any,
) -> Answer:
    sent = JSON | (headers or {})
    if key is not None:
        sent["Idempotency-Key"] = key
    if after is not None:
        sent["Last-Event-ID"] = after
    return await service.post(path, body(path, **fields), headers=sent)


def body(path: str, **fields: Any) -> dict[str, Any]:
    return (CHAT if "chat" in path else {"prompt": "hello"}) | fields


def frames(text: bytes) -> list[tuple[str | None, str]]:
    """The complete events of a stream, or of its beginning: id and data."""
    found = []
    for frame in text.decode().split("\n\n")[:-1]:
        lines = dict(line.split(": ", 1) for line in frame.split("\n"))
        if "data" in lines:
            found.append((lines.get("id"), lines["data"]))
    return found


def plain(events: list[tuple[str | None, str]]) -> list[tuple[int, Any, Any]]:
    """Index, gain and end of each choice's events."""
    chunks = [msgspec.json.decode(data) for _, data in events if data != "[DONE]"]
    return [
        (c["index"], c.get("text", c.get("delta")), c["finish_reason"])
        for chunk in chunks
        for c in chunk["choices"]
    ]


@contextlib.asynccontextmanager
async def client_that_leaves(
    service: Service, path: str, *, streamed: bool, key: str | None = "key"
) -> AsyncIterator[None]:
    """A client that is there until the end of the context, and then gone at once."""
    sent = msgspec.json.encode(body(path, stream=streamed))
    _, writer = await asyncio.open_connection(*service.address)
    name = f"Idempotency-Key: {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{name}"
    writer.write(f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
    yield
    writer.close()


def n_readers(service: Service) -> int:
    """Clients that read the durable requests which run now."""
    running_now = service.app[SERVICES].durable._running.values()
    return sum(len(request._watchers) for request in running_now)


def let_go(worker: FakeWorker) -> None:
    worker.auto = True
    worker.go()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("streamed", [True, False])
async def test_it_goes_on_without_its_client_and_is_answered_when_asked_again(
    path: str, streamed: bool
) -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        async with client_that_leaves(service, path, streamed=streamed):
            await until(lambda: worker.active)
            worker.step()
        async with client_that_leaves(service, path, streamed=streamed, key=None):
            await until(lambda: len(worker.active) == 2)
        await until(lambda: service.dispatcher.ledger.requests.cancelled == 1)
        assert len(worker.active) == service.dispatcher.occupancy.running == 1
        let_go(worker)
        await until(lambda: service.dispatcher.idle)
        assert service.dispatcher.ledger.requests.succeeded == 1
        first, again = [await ask(service, path=path, stream=streamed) for _ in range(2)]
        assert first.status == 200
        assert first.body == again.body
        assert first.headers["X-Request-Id"] != again.headers["X-Request-Id"]
        assert len(generates(worker.sent)) == 2
        assert service.dispatcher.ledger.requests.succeeded == 1


async def test_joining_while_it_runs_gives_all_readers_the_same() -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        options = {"stream": True, "stream_options": {"include_usage": True}, "n": 2}
        readers = [asyncio.create_task(ask(service, **options))]
        await until(lambda: len(worker.active) == 2)
        worker.step()
        readers += [asyncio.create_task(ask(service, **options)) for _ in range(2)]
        await until(lambda: n_readers(service) == 3)
        let_go(worker)
        answers = await asyncio.gather(*readers)
        assert len(generates(worker.sent)) == 2
    for answer in answers:
        *chunks, (_, last), _ = frames(answer.body)
        assert '"completion_tokens":10' in last
        for index in (0, 1):
            own = [text for choice, text, _ in plain(chunks) if choice == index]
            assert "".join(own) == text_of("hello", choice=index)
    firsts = [msgspec.json.decode(frames(answer.body)[0][1]) for answer in answers]
    assert len({(chunk["id"], chunk["created"]) for chunk in firsts}) == 1


async def test_whole_answers_are_joined_too() -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        readers = [asyncio.create_task(ask(service, n=2)) for _ in range(3)]
        await until(lambda: len(worker.active) == 2)
        let_go(worker)
        answers = await asyncio.gather(*readers)
        assert len({answer.body for answer in answers}) == 1
        assert len(generates(worker.sent)) == 2
        assert (await ask(service, n=2)).body == answers[0].body


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("n", [1, 3])
async def test_from_each_event_s_id_the_stream_goes_on_after_it(
    service: Service, path: str, n: int
) -> None:
    options = {"path": path, "stream": True, "n": n, "stream_options": {"include_usage": True}}
    events = frames((await ask(service, **options)).body)
    *numbered, (last_id, done) = events
    assert (last_id, done) == (None, "[DONE]")
    ids = [event_id for event_id, _ in numbered]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    for count, event_id in enumerate(ids, start=1):
        rest = frames((await ask(service, after=event_id, **options)).body)
        assert rest[-1] == (None, "[DONE]")
        expected = numbered[count:]
        if n == 1:  # text that gathered comes in one piece, so only the sums are the same
            assert joined(rest) == joined(expected)
            assert rest[-2:] == events[count:][-2:]
        else:
            assert plain(rest) == plain(expected)


def joined(events: list[tuple[str | None, str]]) -> str:
    gained = [entry for _, entry, _ in plain(events)]
    return "".join(e if isinstance(e, str) else e.get("content", "") for e in gained)


async def test_a_stream_without_usage_ends_with_an_id_too(service: Service) -> None:
    events = frames((await ask(service, stream=True)).body)
    assert all(event_id for event_id, _ in events)
    rest = await ask(service, stream=True, after=events[-1][0])
    assert rest.body == b"data: [DONE]\n\n"


async def test_an_ordinary_stream_carries_no_ids(service: Service) -> None:
    answer = await ask(service, key=None, stream=True)
    assert b"id: " not in answer.body
    assert answer.body.startswith(b"data: ")


async def test_resuming_waits_for_text_to_come_and_survives_a_worker() -> None:
    async with running(LimitsConfig(first_byte_s=0.02)) as service:
        worker = service.fleet.start_worker(auto=False)
        async with service.http.post(
            "/v1/completions",
            json=body("", stream=True),
            headers={"Idempotency-Key": "key"},
        ) as response:
            await until(lambda: worker.active)
            worker.step()
            assert await response.content.readuntil(b"\n\n") == COMMENT
            (event,) = frames(await response.content.readuntil(b"\n\n"))
        rest = asyncio.create_task(ask(service, stream=True, after=event[0]))
        worker.die()
        service.fleet.start_worker()
        assert joined([event, *frames((await rest).body)]) == text_of("hello")
        assert service.dispatcher.ledger.requests.replayed == 1


@pytest.mark.parametrize(
    "after", ["", "x", "1", "-1", "deadbeef", "deadbeef-", "deadbeef-0", "deadbeef-01", "é-1"]
)
async def test_a_malformed_event_id_is_a_400(service: Service, after: str) -> None:
    await ask(service, stream=True)
    answer = await ask(service, stream=True, after=after)
    assert (answer.status, answer.error["param"]) == (400, "Last-Event-ID")


async def test_an_unknown_event_id_is_a_400_and_starts_nothing() -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        first = await ask(service, stream=True, after="deadbeef-1")
        assert (first.status, first.error["param"]) == (400, "Last-Event-ID")
        assert generates(worker.sent) == []
        event_id = frames((await ask(service, stream=True)).body)[0][0] or ""
        tag = event_id.split("-")[0]
        for after, key in [(f"{tag}-99", "key"), ("deadbeef-1", "key"), (event_id, "other")]:
            answer = await ask(service, stream=True, after=after, key=key)
            assert (answer.status, answer.error["param"]) == (400, "Last-Event-ID")
        assert len(generates(worker.sent)) == 1


async def test_an_event_id_needs_a_key_and_a_stream(service: Service) -> None:
    for options in ({"key": None, "stream": True}, {"stream": False}):
        answer = await ask(service, after="deadbeef-1", **options)
        assert (answer.status, answer.error["param"]) == (400, "Last-Event-ID")


@pytest.mark.parametrize("key", ["", "x" * 256, "ü", "a\tb"])
async def test_a_malformed_key_is_a_400(service: Service, key: str) -> None:
    answer = await ask(service, key=key)
    assert (answer.status, answer.error["param"]) == (400, "Idempotency-Key")


async def test_two_keys_are_a_400(service: Service) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b"), *JSON.items()]
    answer = await service.post("/v1/completions", body(""), headers=headers)
    assert (answer.status, answer.error["param"]) == (400, "Idempotency-Key")


async def test_any_printable_key_will_do(service: Service) -> None:
    for key in ("x" * 255, "a b", "".join(map(chr, range(33, 127)))):
        assert (await ask(service, key=key)).body == (await ask(service, key=key)).body


async def test_a_key_of_another_request_is_a_400(service: Service) -> None:
    first = await ask(service)
    different: list[dict[str, Any]] = [
        {"prompt": "other"},
        {"stream": True},
        {"seed": 1},
        {"path": PATHS[1]},
    ]
    for fields in different:
        answer = await ask(service, **fields)
        assert (answer.status, answer.error["param"]) == (400, "Idempotency-Key")
        assert answer.error["code"] == "invalid_value"
    spaced = b' {"max_tokens": null,  "prompt":\n"hello"}'
    headers = JSON | {"Idempotency-Key": "key"}
    same = await service.post("/v1/completions", data=spaced, headers=headers)
    assert same.body == first.body


async def test_another_principal_s_key_is_another_key() -> None:
    def by_header(request: web.Request) -> Principal:
        return Principal(request.headers["X-Who"], frozenset({Scope.GENERATE}))

    async with running() as service:
        app = create_web_app(service.app[SERVICES], Authenticator(by_header))
        await service.stop()
        service.runner = FrontRunner(app, service.config.limits)
        await service.start()
        service.fleet.start_worker()
        mine, yours = [await ask(service, headers={"X-Who": who}) for who in ("me", "you")]
        assert mine.json["id"] != yours.json["id"]
        # neither a body nor an event of mine tells whether I have used that key
        used, unused = [
            await ask(service, headers={"X-Who": "they"}, prompt="else", key=key)
            for key in ("key", "never used")
        ]
        assert used.status == unused.status == 200
        stream = await ask(service, headers={"X-Who": "me"}, key="s", stream=True)
        (event_id, _), *_ = frames(stream.body)
        errors = [
            (await ask(service, headers={"X-Who": "you"}, key=key, stream=True, after=event_id))
            for key in ("s", "never used either")
        ]
        assert [error.status for error in errors] == [400, 400]
        assert errors[0].body == errors[1].body


async def test_refusals_are_not_remembered() -> None:
    async with running(slots=1, queue=0) as service:
        assert (await ask(service, temperature=-1)).status == 400
        service.fleet.change(FAILED)
        assert (await ask(service)).status == 503
        worker = service.fleet.start_worker(auto=False)
        blocking = asyncio.create_task(service.complete())
        await until(lambda: worker.active)
        refused = await ask(service)
        assert (refused.status, refused.error["type"]) == (503, "overloaded_error")
        let_go(worker)
        await blocking
        too_long = await ask(service, prompt="x" * 4096)
        assert too_long.error["code"] == "context_length_exceeded"
        assert (await ask(service)).status == 200


async def give_up(worker: FakeWorker) -> None:
    await until(lambda: worker.active)
    for no in list(worker.active):
        del worker.active[no]
        worker.tell(Finished(worker.epoch, no, FinishReason.CANCELLED))


async def test_the_generation_s_own_error_is_its_answer() -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        asking = asyncio.create_task(ask(service))
        await give_up(worker)
        first, again = await asking, await ask(service)
        assert (first.status, first.error["code"]) == (500, "internal_error")
        assert again.body == first.body
        assert len(generates(worker.sent)) == 1


async def test_an_error_in_a_stream_is_an_event_with_an_id() -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        sent = JSON | {"Idempotency-Key": "key"}
        path = PATHS[0]
        asking = service.http.post(path, json=body(path, stream=True), headers=sent)
        opening = asyncio.ensure_future(asking)
        await until(lambda: worker.active)
        worker.step()
        async with await opening as answer:  # its headers: the first event has been sent
            await give_up(worker)
            text, error, done = frames(await answer.read())
        assert "internal_error" in error[1]
        assert done == (None, "[DONE]")
        again = await ask(service, stream=True, after=text[0])
        assert (again.status, again.error["code"]) == (500, "internal_error")
        rest = await ask(service, stream=True, after=error[0])
        assert (rest.status, rest.body) == (200, b"data: [DONE]\n\n")


async def test_running_ones_that_fill_the_store_refuse_durable_requests_only() -> None:
    async with running(LimitsConfig(max_durable_requests=2), slots=8) as service:
        worker = service.fleet.start_worker(auto=False)
        full = [asyncio.create_task(ask(service, key=key)) for key in "ab"]
        await until(lambda: len(worker.active) == 2)
        refused = await ask(service, key="c")
        assert (refused.status, refused.error["type"]) == (503, "overloaded_error")
        assert int(refused.headers["Retry-After"]) >= 1
        assert service.dispatcher.ledger.requests.rejected == 1
        ordinary = asyncio.create_task(service.complete())
        joined_one = asyncio.create_task(ask(service, key="a"))
        await until(lambda: len(worker.active) == 3)
        let_go(worker)
        assert (await ordinary).status == 200
        assert (await joined_one).body == (await full[0]).body
        await full[1]
        assert (await ask(service, key="c")).status == 200


async def test_a_finished_answer_is_forgotten_after_its_window() -> None:
    async with running(LimitsConfig(durable_window_s=0.05)) as service:
        worker = service.fleet.start_worker()
        ids: set[str] = set()
        async with asyncio.timeout(60):
            while len(ids) < 2:
                ids.add((await ask(service)).json["id"])
        assert len(generates(worker.sent)) == 2


async def test_a_drain_waits_for_it_and_shutting_down_ends_it() -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        async with client_that_leaves(service, "/v1/completions", streamed=False):
            await until(lambda: worker.active)
        service.dispatcher.drain()
        assert not await service.dispatcher.wait_idle(0.02)
        assert (await ask(service, key="new")).status == 503
        await until(lambda: n_readers(service) == 0)
        joining = asyncio.create_task(ask(service, stream=False))
        await until(lambda: n_readers(service) == 1)
        service.dispatcher.end_all(Overloaded("stopping", retry_after_s=1))
        await until(lambda: service.dispatcher.idle)
        assert (await joining).status == 503


async def test_usage_counts_the_tokens_once(service: Service) -> None:
    answers = [await ask(service, max_tokens=3) for _ in range(3)]
    assert answers[2].json["usage"]["completion_tokens"] == 3
    assert service.dispatcher.ledger.tokens.generated == 3
    assert service.dispatcher.ledger.requests.succeeded == 1
