"""Request bodies: their memory, the time for the rest, and the thread that decodes large ones."""

import asyncio
import gc
import json
import re
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from aiohttp.streams import StreamReader
from hypothesis import given
from hypothesis import strategies as st

from gpufc.config import LimitsConfig
from gpufc.errors import Overloaded
from supervisor.dispatch.stream import ResponseStream
from supervisor.http.anthropic import messages
from supervisor.http.edge import body, body_cost
from supervisor.http.edge.body import CHUNKED_BYTES
from supervisor.http.edge.body_budget import BodyBudget
from supervisor.http.edge.body_cost import CONTAINER, ESCAPES, MEMBER, STRING, weigh
from supervisor.http.generation import generate, validation
from supervisor.http.ollama import chat as ollama_chat
from supervisor.http.responses import handlers
from tests.supervisor.dispatch.fakes import until
from tests.supervisor.http.conftest import Service, running

KIB, MIB = 1024, 1024 * 1024
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.just("\n" * 20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def cost_of(value: Any) -> int:
    match value:
        case str():
            return STRING
        case list():
            return CONTAINER + sum(map(cost_of, value)) + max(0, len(value) - 1)
        case dict():
            members = sum(MEMBER + STRING + cost_of(one) for one in value.values())
            return CONTAINER + members + max(0, len(value) - 1)
    return 0


@given(VALUES, st.booleans(), st.integers(1, 40))
def test_a_text_is_weighed_by_its_values_wherever_its_pieces_end(
    value: Any, ascii_only: bool, piece_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_cost, "PIECE_BYTES", piece_bytes)
        text = json.dumps(value, ensure_ascii=ascii_only).encode()
        n_escapes = len(re.findall(rb"\\.", text))
        assert list(weigh(text))[-1].elements == cost_of(value) + n_escapes // ESCAPES


HOSTILE = {
    "logit_bias": b'{"prompt":"a","logit_bias":{%s}}'
    % b",".join(b'"%d":1' % i for i in range(300_000)),
    "stop": b'{"prompt":"a","stop":[%s"x"]}' % (b'"x",' * 600_000),
    "prompts": b'{"prompt":[%s[65]]}' % (b"[65]," * 262_143),
    "tools": b'{"prompt":"a","tools":[%s{"a":1}]}' % (b'{"a":1},' * 500_000),
    "unknown": b'{"prompt":"a","zz":[%s1]}' % (b"1," * 2_000_000),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_body_of_too_many_values_is_refused_without_being_decoded(
    service: Service, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "_decode", None)
    headers = {"Content-Type": "application/json"}
    answer = await service.post("/v1/completions", data=HOSTILE[name], headers=headers)
    assert answer.status == 400
    assert "too many values" in answer.error["message"]


async def test_the_largest_conversation_is_within_the_values(service: Service) -> None:
    part = {"type": "text", "text": "some words"}
    messages = [{"role": "user", "content": [part]}] * 4096
    assert (await service.chat(messages=messages)).status != 413
    assert "too many values" not in (await service.chat(messages=messages)).body.decode()


async def test_large_bodies_are_decoded_off_the_loop_and_small_ones_on_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    decode = body._decode

    def noted(*args: Any) -> Any:
        threads.append(threading.current_thread())
        return decode(*args)

    monkeypatch.setattr(body, "_decode", noted)
    await service.complete(prompt="a")
    await asyncio.gather(*(service.complete(prompt="a" * 100 * KIB) for _ in range(3)))
    small, *large = threads
    assert small is threading.main_thread()
    assert len(large) == 3
    assert threading.main_thread() not in large
    assert len(set(large)) == 1


class Held:
    """A request with the last byte of its body held back."""

    def __init__(self, service: Service, n_bytes: int) -> None:
        self._service = service
        self._n_bytes = n_bytes

    async def __aenter__(self) -> "Held":
        self._reader, self._writer = await asyncio.open_connection(*self._service.address)
        body = b'{"prompt":"%s"}' % (b"a" * (self._n_bytes - 13))
        head = (
            b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
        )
        self._writer.write(head + body[:-1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def answer(self, end: bytes = b"") -> bytes:
        self._writer.write(end)
        return await self._reader.read()


def budget_of(service: Service) -> BodyBudget:
    return service.app[body.BODIES].budget


async def test_bodies_share_one_budget_and_large_ones_leave_room_for_small_ones() -> None:
    async with running(LimitsConfig(max_bodies_bytes=2 * MIB)) as service:
        service.fleet.start_worker()
        budget = budget_of(service)
        async with Held(service, 800 * KIB) as held:
            await until(lambda: budget.held_bytes == body.COPIES * 800 * KIB)
            answer = await service.complete(prompt="a" * 200 * KIB)
            assert (answer.status, answer.error["type"]) == (503, "overloaded_error")
            assert int(answer.headers["Retry-After"]) >= 1
            assert (await service.complete(prompt="a")).status == 200
            assert budget.held_bytes == body.COPIES * 800 * KIB
            assert b" 400 " in await held.answer(b"}")
        await until(lambda: budget.held_bytes == 0)
        assert (await service.complete(prompt="a" * 200 * KIB)).status != 503
        assert budget.held_bytes == 0


async def test_a_body_that_is_too_large_for_the_budget_is_read_when_it_is_alone() -> None:
    async with running(LimitsConfig(max_bodies_bytes=MIB)) as service:
        service.fleet.start_worker()
        assert (await service.complete(prompt="a" * 2 * MIB)).status != 503


async def test_answers_that_are_much_larger_than_their_bodies_share_a_budget() -> None:
    text = {"content": "a" * 20 * KIB, "with_pieces": True}
    async with running(LimitsConfig(max_bodies_bytes=MIB)) as service:
        service.fleet.start_worker()
        answers = service.app[body.BODIES].answers
        assert (await service.post("/tokenize", text)).status == 200
        assert answers.held_bytes == 0
        answers.take(answers.for_large_bytes)
        assert (await service.post("/tokenize", text)).status == 503
        assert (await service.post("/tokenize", {"content": "a" * 200})).status == 200
        assert answers.held_bytes == answers.for_large_bytes
        assert (await service.complete(prompt="a" * 200 * KIB)).status != 503


async def test_a_body_that_leaves_gives_its_memory_back(service: Service) -> None:
    budget = budget_of(service)
    async with Held(service, 800 * KIB):
        await until(lambda: budget.held_bytes == body.COPIES * 800 * KIB)
    await until(lambda: budget.held_bytes == 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refused_request_is_forgotten_without_a_collection(
    service: Service, stream: bool
) -> None:
    def n_streams() -> int:
        return sum(isinstance(one, ResponseStream) for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = n_streams()  # other tests' included
        for _ in range(3):
            answer = await service.complete(prompt="x" * 5000, stream=stream)
            assert answer.error["code"] == "context_length_exceeded"
        await until(lambda: n_streams() <= before)
    finally:
        gc.enable()


async def test_a_body_ahead_of_its_rate_gets_no_more_time_when_it_stalls() -> None:
    # 200 KiB at this rate would be 200 s
    limits = LimitsConfig(body_timeout_s=0.3, body_rate=KIB)
    async with running(limits) as service, Held(service, 200 * KIB) as held:
        assert b" 408 " in await held.answer()


async def test_a_body_in_chunks_is_counted_as_it_arrives() -> None:
    async def chunks() -> Any:
        for _ in range(20):
            yield b" " * 65_536

    limits = LimitsConfig(max_bodies_bytes=4 * MIB)
    async with running(limits) as service, Held(service, 1200 * KIB):
        await until(lambda: budget_of(service).held_bytes == body.COPIES * 1200 * KIB)
        headers = {"Content-Type": "application/json"}
        answer = await service.post("/v1/completions", data=chunks(), headers=headers)
        assert answer.status == 503


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize(("char", "width"), [("a", 0), ("é", 1), ("語", 2), ("🙂", 4)])
def test_a_body_with_a_wide_character_counts_the_width_of_all(
    char: str, width: int, ascii_only: bool
) -> None:
    text = char + "a" * 300 * KIB
    sent = bytearray(json.dumps({"prompt": text}, ensure_ascii=ascii_only), "utf-8")
    n_bytes = body._weighed(sent).n_bytes
    plain = body._weighed(bytearray(json.dumps({"prompt": "a"}), "utf-8")).n_bytes
    assert n_bytes - plain == pytest.approx(width * len(text), abs=100)


@pytest.mark.parametrize("text", ["語" * 100 * KIB, "🙂é\n\0" * 50 * KIB])
def test_characters_are_counted_however_they_are_written(text: str) -> None:
    *_, last = weigh(json.dumps([text], ensure_ascii=False).encode())
    assert last.n_chars - len('[""]') == len(text) + text.count("\n")
    *_, last = weigh(json.dumps([text]).encode())
    assert last.n_chars - len('[""]') == len(text.encode("utf-16-le")) // 2 + text.count("\n")


def test_a_refused_body_counts_nothing() -> None:
    budget = BodyBudget(8 * MIB)
    budget.take(6 * MIB)
    with pytest.raises(Overloaded):
        budget.take(2 * MIB)
    assert budget.held_bytes == 6 * MIB
    for _ in range(32):
        budget.take(64 * KIB)
    budget.give_back(6 * MIB, held_s=200.0)
    with pytest.raises(Overloaded) as refused:
        budget.take(7 * MIB)
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s > 20.0


def test_a_large_one_that_takes_all_it_may_is_let_in_beside_small_ones() -> None:
    budget = BodyBudget(8 * MIB)
    for _ in range(4):
        budget.take(64 * KIB)
    budget.take(budget.for_large_bytes)
    with pytest.raises(Overloaded):
        budget.take(65 * KIB)
    budget.give_back(budget.for_large_bytes, held_s=1.0)
    budget.take(60 * KIB)
    budget.take(40 * KIB, held=60 * KIB)  # it is large now
    with pytest.raises(Overloaded):
        budget.take(budget.for_large_bytes)
    budget.give_back(100 * KIB, held_s=1.0)
    budget.take(budget.for_large_bytes)
    assert budget.held_bytes == budget.for_large_bytes + 4 * 64 * KIB


@pytest.mark.parametrize("escape", ["\\n", '\\"', "\\u00e9"])
def test_a_long_text_of_escapes_only_is_within_the_values(escape: str) -> None:
    text = ('{"prompt":"' + escape * ((8 * MIB - 13) // len(escape)) + '"}').encode()
    assert not list(weigh(text))[-1].is_too_much


USER = {"role": "user"}
TRANSLATED = [
    (
        "/v1/messages",
        messages,
        "chat_fields",
        lambda text: {"messages": [USER | {"content": text}]},
    ),
    ("/v1/responses", handlers, "chat_fields", lambda text: {"input": text}),
    ("/api/chat", ollama_chat, "ChatFields", lambda text: {"messages": [USER | {"content": text}]}),
]


@pytest.mark.parametrize(("path", "module", "translation", "body_of"), TRANSLATED)
async def test_the_loop_goes_on_between_the_steps_of_a_large_request(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    module: ModuleType,
    translation: str,
    body_of: Callable[[str], object],
) -> None:
    """Its translation and its conversation are made in turns of their own."""
    events: list[str] = []
    translate, ask = getattr(module, translation), module.asked_of

    def translated(*args: Any, **fields: Any) -> Any:
        asyncio.get_running_loop().call_soon(events.append, "another turn")
        return translate(*args, **fields)

    def asked(*args: Any) -> Any:
        events.append("asked")
        return ask(*args)

    monkeypatch.setattr(module, translation, translated)
    monkeypatch.setattr(module, "asked_of", asked)
    await service.post(path, body_of("a" * 100 * KIB))
    assert events == ["another turn", "asked"]
    events.clear()
    await service.post(path, body_of("a"))
    assert events == ["asked", "another turn"]


ACCEPTED: list[tuple[str, Callable[[str], object]]] = [
    ("/v1/chat/completions", lambda text: {"messages": [USER | {"content": text}]}),
    ("/v1/completions", lambda text: {"prompt": text}),
    *((path, body_of) for path, _, _, body_of in TRANSLATED),
]


@pytest.mark.parametrize(("path", "body_of"), ACCEPTED)
async def test_a_large_request_is_accepted_in_a_turn_of_its_own(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body_of: Callable[[str], object],
) -> None:
    """Its message to the worker is made and sent in it."""
    events: list[str] = []
    translate, accept = validation.max_tokens, generate.accepted

    def translated(*args: Any) -> Any:
        asyncio.get_running_loop().call_soon(events.append, "another turn")
        return translate(*args)

    def accepted(*args: Any) -> Any:
        events.append("accepted")
        return accept(*args)

    monkeypatch.setattr(validation, "max_tokens", translated)
    monkeypatch.setattr(generate, "accepted", accepted)
    await service.post(path, body_of("a" * 100 * KIB))
    assert events == ["another turn", "accepted"]
    events.clear()
    await service.post(path, body_of("a"))
    assert events == ["accepted", "another turn"]


async def test_the_loop_goes_on_between_the_parts_of_a_body_in_tiny_chunks(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_taken, turns = 0, list[int]()
    take = StreamReader._read_nowait_chunk

    def taken(reader: StreamReader, n: int) -> bytes:
        nonlocal n_taken
        n_taken += 1
        return take(reader, n)

    async def watch() -> None:
        nonlocal n_taken
        while True:
            turns.append(n_taken)
            n_taken = 0
            await asyncio.sleep(0)

    monkeypatch.setattr(StreamReader, "_read_nowait_chunk", taken)
    body = b'{"prompt":"a","max_tokens":2,"zz":"%s"}' % (b"x" * 50_000)
    chunked = b"".join(b"1\r\n%c\r\n" % each for each in body)
    reader, writer = await asyncio.open_connection(*service.address)
    watching = asyncio.create_task(watch())
    try:
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n%s0\r\n\r\n" % chunked
        )
        assert b" 200 " in await asyncio.wait_for(reader.readline(), 60)
    finally:
        watching.cancel()
        writer.close()
    assert sum(turns) >= len(body)
    assert max(turns) <= CHUNKED_BYTES
