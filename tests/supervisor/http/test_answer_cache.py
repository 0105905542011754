"""Exact repeats of deterministic requests, answered from memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from gpufc.config import Config, LimitsConfig
from gpufc.protocol import Generate
from supervisor.access import store
from supervisor.access.keys import Key, KeyList
from supervisor.access.ring import KeyRing
from supervisor.access.sessions import Sessions
from supervisor.http.edge.credentials import by_keys
from supervisor.http.generation.answer_cache import HEADER, AnswerCache
from tests.supervisor.access.test_keys import Clock, key
from tests.supervisor.dispatch.fakes import KILLED, FakeWorker
from tests.supervisor.http.conftest import Answer, Service

JSON = {"Content-Type": "application/json"}
GREEDY = {"prompt": "hello", "temperature": 0}


class Cached:
    def __init__(self, service: Service, worker: FakeWorker) -> None:
        self.service = service
        self.worker = worker

    @property
    def n_computed(self) -> int:
        return sum(isinstance(sent, Generate) for sent in self.worker.sent)

    async def ask(
        self, body: dict[str, Any], path: str = "/v1/completions", **headers: str
    ) -> Answer:
        return await self.service.post(path, body, headers=JSON | headers)


@asynccontextmanager
async def caching(folder: Path, *keys: Key, n_bytes: int = 100_000) -> AsyncIterator[Cached]:
    limits = LimitsConfig(response_cache_bytes=n_bytes)
    path = folder / "keys.json"
    store.change(path, lambda _: KeyList(keys))
    access = by_keys(KeyRing(path), Sessions(b"", Clock()))
    service = Service(Config(limits=limits), authenticator=access)
    await service.start()
    try:
        yield Cached(service, service.fleet.start_worker())
    finally:
        await service.stop()


async def test_another_chat_template_makes_another_answer(tmp_path: Path) -> None:
    async with caching(tmp_path, key("a")) as made:
        await made.ask(GREEDY, **{"x-api-key": "a"})
        made.worker.facts = structs.replace(made.worker.facts, chat_template="other")
        made.service.dispatcher.worker_lost(made.worker, KILLED)
        made.service.dispatcher.worker_ready(made.worker)
        again = await made.ask(GREEDY, **{"x-api-key": "a"})
        assert again.headers[HEADER] == "miss"


async def test_an_exact_repeat_is_not_computed_again(tmp_path: Path) -> None:
    async with caching(tmp_path, key("a")) as made:
        first = await made.ask(GREEDY, **{"x-api-key": "a"})
        again = await made.ask(GREEDY, **{"x-api-key": "a"})
        assert (first.status, first.headers[HEADER]) == (200, "miss")
        assert (again.status, again.headers[HEADER]) == (200, "hit")
        assert again.body == first.body
        assert again.headers["X-Request-Id"] != first.headers["X-Request-Id"]
        assert made.n_computed == 1


@pytest.mark.parametrize(
    "other",
    [
        *({"prompt": "hello!"}, {"max_tokens": 3}, {"n": 2}, {"temperature": 0.0}, {"stop": "x"}),
        {"seed": 1},
    ],
    ids=str,
)
async def test_another_request_is_computed(tmp_path: Path, other: dict[str, Any]) -> None:
    async with caching(tmp_path, key("a")) as made:
        await made.ask(GREEDY, **{"x-api-key": "a"})
        answer = await made.ask(GREEDY | other, **{"x-api-key": "a"})
        assert answer.headers[HEADER] == "miss"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"prompt": "hello"}, {}),
        ({"prompt": "hello", "seed": -1}, {}),
        (GREEDY | {"stream": True}, {}),
        (GREEDY | {"cache_prompt": False}, {}),
        (GREEDY, {"Idempotency-Key": "k"}),
    ],
    ids=str,
)
async def test_what_is_random_streamed_or_durable_is_never_kept(
    tmp_path: Path, body: dict[str, Any], headers: dict[str, str]
) -> None:
    async with caching(tmp_path, key("a")) as made:
        for _ in range(2):
            answer = await made.ask(body, **headers, **{"x-api-key": "a"})
            assert answer.status == 200
            assert HEADER not in answer.headers


async def test_a_seed_makes_an_answer_repeatable_and_no_cache_computes_it_anew(
    tmp_path: Path,
) -> None:
    async with caching(tmp_path, key("a")) as made:
        body = {"prompt": "hello", "seed": 7}
        seen = [
            (await made.ask(body, **{"x-api-key": "a", "Cache-Control": control})).headers[HEADER]
            for control in ("", "", "no-cache", "")
        ]
        assert seen == ["miss", "hit", "miss", "hit"]


async def test_keys_share_answers_in_a_group_only(tmp_path: Path) -> None:
    keys = (key("a"), key("b"), key("c", cache_group="team"), key("d", cache_group="team"))
    async with caching(tmp_path, *keys) as made:
        seen = {
            name: (await made.ask(GREEDY, **{"x-api-key": name})).headers[HEADER]
            for name in ("a", "b", "c", "d")
        }
        assert seen == {"a": "miss", "b": "miss", "c": "miss", "d": "hit"}


async def test_a_refused_request_is_not_kept_and_other_routes_have_their_own(
    tmp_path: Path,
) -> None:
    async with caching(tmp_path, key("a")) as made:
        for _ in range(2):
            refused = await made.ask(GREEDY | {"n": 999}, **{"x-api-key": "a"})
            assert (refused.status, HEADER in refused.headers) == (400, False)
        for path in ("/v1/completions", "/completion"):
            assert (await made.ask(GREEDY, path, **{"x-api-key": "a"})).headers[HEADER] == "miss"


async def test_it_is_off_by_default(service: Service) -> None:
    answers = [await service.complete(temperature=0) for _ in range(2)]
    assert not [answer for answer in answers if HEADER in answer.headers]


def test_the_cache_is_bounded_in_bytes_and_age() -> None:
    clock = Clock()
    cache = AnswerCache(2500, 60.0, clock)
    for number in range(5):
        cache.put(bytes([number]), b"x" * 700)
    assert [cache.get(bytes([number])) is not None for number in range(5)] == [
        *(False, False, False, True, True)
    ]
    assert cache.n_bytes == 2000
    cache.get(b"\x03")
    cache.put(b"new", b"x" * 700)
    assert cache.get(b"\x04") is None
    assert cache.get(b"\x03") is not None
    cache.put(b"large", b"x" * 3000)
    assert cache.get(b"large") is None
    clock.now += 60.0
    assert cache.get(b"\x03") is None
    cache.put(b"new", b"y")
    assert cache.get(b"new") == b"y"
