"""Keys over HTTP: each scope reaches its routes only, and limits answer with a time to wait."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from gpufc.config import AdmissionConfig, Config
from gpufc.protocol import Generate
from supervisor.access import store
from supervisor.access.keys import Key, KeyList, digest
from supervisor.access.ring import LOOK_S, KeyRing
from supervisor.access.sessions import Sessions
from supervisor.dispatch.request import Scope
from supervisor.fleet.port import Condition, ConditionStatus
from supervisor.http import routes
from supervisor.http.edge.credentials import NO_KEY, WRONG_KEY, by_keys
from supervisor.http.routes import ROUTES, spellings
from tests.supervisor.access.test_keys import Clock, key
from tests.supervisor.dispatch.fakes import MODEL, OK, FakeWorker
from tests.supervisor.http.conftest import Answer, Service

JSON = {"Content-Type": "application/json"}
PROMPT = {"prompt": "hello"}
EACH = {scope: key(scope.value, scopes=(scope,)) for scope in Scope}


class Keyed:
    """A front whose keys are in a file. The text of a key is its name."""

    worker: FakeWorker

    def __init__(self, path: Path, *keys: Key) -> None:
        self.path = path
        self.clock, self.wall = Clock(), Clock()
        self.put(*keys)
        ring = KeyRing(path, clock=self.clock, wall=self.wall)
        config = Config(admission=AdmissionConfig(max_concurrent_requests=4))
        self.service = Service(config, authenticator=by_keys(ring, Sessions(b"secret", self.wall)))

    def put(self, *keys: Key) -> None:
        store.change(self.path, lambda _known: KeyList(keys))

    async def ask(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        async with self.service.http.request(
            method, path, data=b"{}", headers=JSON | headers
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def complete(self, text: str, **fields: object) -> Answer:
        headers = JSON | {"Authorization": f"Bearer {text}"}
        return await self.service.post("/v1/completions", PROMPT | fields, headers=headers)


@asynccontextmanager
async def keyed(path: Path, *keys: Key) -> AsyncIterator[Keyed]:
    made = Keyed(path / "keys.json", *keys)
    await made.service.start()
    made.worker = made.service.fleet.start_worker()
    try:
        yield made
    finally:
        await made.service.stop()


async def reached(_request: web.Request) -> web.Response:
    return web.Response(status=299)


ALLOWED = {
    Scope.GENERATE: {Scope.GENERATE, None},
    Scope.READ: {Scope.READ, None},
    Scope.ADMIN: {*Scope, None},
    "wrong": {None},
    "": {None},
}
"""For each scope of a key (a wrong key, no key): scopes of the routes that it reaches."""


@pytest.mark.parametrize("held", ALLOWED, ids=lambda held: str(held) or "none")
async def test_each_scope_reaches_its_routes_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    routes._description()  # made from the real handlers, and kept
    stubs = [msgspec.structs.replace(route, handler=reached) for route in ROUTES]
    monkeypatch.setattr(routes, "ROUTES", stubs)
    headers = {"Authorization": f"Bearer {held}"} if held else {}
    async with keyed(tmp_path, *EACH.values()) as made:
        for route in (route for route in ROUTES if not route.signs_in):
            for path in spellings(re.sub(r"\{[^}]*\}", "x", route.path)):
                answer = await made.ask(route.method, path, headers)
                if route.scope in ALLOWED[held]:
                    assert answer.status == 299, (route.method, path)
                else:
                    denied = 403 if held in EACH else 401
                    assert answer.status == denied, (route.method, path)
                    assert answer.headers["x-should-retry"] == "false"


HEADERS: list[tuple[dict[str, str], int]] = [
    ({"Authorization": "Bearer generate"}, 200),
    ({"authorization": "bearer  generate "}, 200),
    ({"x-api-key": "generate"}, 200),
    ({"X-Api-Key": " generate "}, 200),
    ({"api-key": "generate"}, 200),
    ({"Authorization": "Bearer unused", "x-api-key": "generate"}, 200),
    ({"Authorization": "Bearer", "x-api-key": "generate"}, 200),
    ({"Authorization": "Basic Z2VuZXJhdGU="}, 401),
    ({"Authorization": "generate"}, 401),
    ({"Authorization": "Bearer"}, 401),
    ({"Authorization": "Bearer "}, 401),
    ({"x-api-key": ""}, 401),
    ({"Authorization": "Bearer Generate"}, 401),
    ({"Authorization": "Bearer generate generate"}, 401),
    ({"Authorization": f"Bearer {digest('generate')}"}, 401),
    ({"Cookie": "key=generate"}, 401),
    ({}, 401),
]


@pytest.mark.parametrize(("headers", "status"), HEADERS)
async def test_a_key_is_read_from_three_headers(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    async with keyed(tmp_path, *EACH.values()) as made:
        answer = await made.ask("GET", "/v1/models", headers)
        assert answer.status == status
        if status == 401:
            assert (answer.error["type"], answer.error["code"]) == (
                "authentication_error", "invalid_api_key"
            )  # fmt: skip
            assert answer.error["message"] in (NO_KEY, WRONG_KEY)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        query = await made.ask("GET", "/v1/models?key=generate&api-key=generate", {})
        assert query.status == 401


async def test_refusals_have_the_shape_of_each_api(tmp_path: Path) -> None:
    async with keyed(tmp_path, *EACH.values()) as made:
        theirs = (await made.ask("POST", "/v1/messages", {})).json
        assert (theirs["type"], theirs["error"]["type"]) == ("error", "authentication_error")
        assert (await made.ask("POST", "/api/chat", {})).json == {"error": NO_KEY}
        refused = await made.ask("POST", "/v1/completions", {"x-api-key": "read"})
        assert (refused.status, refused.error["type"]) == (403, "permission_error")


async def test_a_wrong_key_is_refused_before_its_body_is_read(tmp_path: Path) -> None:
    async with keyed(tmp_path) as made:
        answer = await made.service.post(
            "/v1/completions", data=b"x" * 1_000_000, headers=JSON | {"x-api-key": "wrong"}
        )
        assert answer.status == 401
        assert answer.headers["Connection"] == "close"


async def test_a_change_of_the_file_counts_while_the_front_runs(tmp_path: Path) -> None:
    async with keyed(tmp_path, key("a")) as made:
        assert ((await made.complete("a")).status, (await made.complete("b")).status) == (200, 401)
        made.put(key("b"))
        made.clock.now += LOOK_S
        assert ((await made.complete("a")).status, (await made.complete("b")).status) == (401, 200)


async def test_an_expired_key_says_so(tmp_path: Path) -> None:
    async with keyed(tmp_path, key("a", expires=200)) as made:
        assert (await made.complete("a")).status == 200
        made.wall.now = 201.0
        answer = await made.complete("a")
        assert (answer.status, answer.error["message"]) == (401, "The key has expired")


async def test_a_key_of_other_models_sees_and_uses_none_here(tmp_path: Path) -> None:
    keys = (key("other", models=("other", "x-*")), key("same", models=(MODEL[:2] + "*",)))
    async with keyed(tmp_path, *keys) as made:
        for fields in ({}, {"model": MODEL}, {"model": "default"}, {"model": "no-such"}):
            answer = await made.complete("other", **fields)
            assert (answer.status, answer.error["type"]) == (403, "permission_error")
            assert MODEL not in answer.error["message"]
        same = await made.complete("same", model=MODEL)
        assert (same.status, same.json["model"]) == (200, MODEL)
        listed = {
            name: (await made.ask("GET", path, {"x-api-key": name})).json[field]
            for name in ("other", "same")
            for path, field in (("/v1/models", "data"),)
        }
        assert listed["other"] == []
        assert [model["id"] for model in listed["same"]] == [MODEL]
        tags = await made.ask("GET", "/api/tags", {"x-api-key": "other"})
        assert tags.json == {"models": []}
        for path in ("/v1/messages/count_tokens", "/tokenize", "/v1/embeddings", "/v1/rerank"):
            body = {"content": "x", "input": "x", "query": "x", "documents": ["x"],
                    "messages": [{"role": "user", "content": "x"}], "model": MODEL}  # fmt: skip
            answer = await made.service.post(path, body, headers=JSON | {"x-api-key": "other"})
            assert answer.status == 403, path


SIGHT = (
    *("/stats", "/metrics", "/v1/models", "/models", "/api/tags", "/api/ps", "/lora-adapters"),
    *("/props", "/slots", "/", f"/props?model={MODEL}", f"/slots?model={MODEL}"),
    f"/v1/models/{MODEL}",
)
"""Routes that show models. `/openapi.json` and `/docs` are the same for everybody."""


async def test_a_key_of_other_models_sees_nothing_of_this_one(tmp_path: Path) -> None:
    scopes = (Scope.READ, Scope.GENERATE)
    other = key("other", scopes=scopes, models=("other",))
    same = key("same", scopes=scopes, models=(MODEL,))
    async with keyed(tmp_path, other, same) as made:
        assert (await made.complete("same")).status == 200
        for path in SIGHT:
            answer = await made.ask("GET", path, {"x-api-key": "other"})
            assert answer.status in (200, 403), path
            assert MODEL.encode() not in answer.body, path
        for path in ("/stats", "/metrics", "/v1/models", "/api/tags", "/api/ps"):
            answer = await made.ask("GET", path, {"x-api-key": "same"})
            assert answer.status == 200
            assert MODEL.encode() in answer.body, path
        shown = await made.service.post(
            "/api/show", {"model": MODEL}, headers=JSON | {"x-api-key": "other"}
        )
        assert shown.status == 403


async def test_requests_a_minute_are_a_429_with_the_wait(tmp_path: Path) -> None:
    async with keyed(tmp_path, key("a", requests_per_minute=2), key("b")) as made:
        assert [(await made.complete("a")).status for _ in range(2)] == [200, 200]
        refused = await made.complete("a")
        assert (refused.status, refused.error["type"], refused.error["code"]) == (
            429, "rate_limit_error", "rate_limit_exceeded"
        )  # fmt: skip
        assert refused.headers["Retry-After"] == "30"
        assert "x-should-retry" not in refused.headers
        assert (await made.ask("GET", "/v1/models", {"x-api-key": "a"})).status == 200
        assert (await made.complete("b")).status == 200
        made.clock.now += 30.1
        assert (await made.complete("a")).status == 200
        assert made.service.dispatcher.ledger.requests.rejected == 1


async def test_a_request_that_has_no_room_costs_its_key_nothing(tmp_path: Path) -> None:
    async with keyed(tmp_path, key("a", requests_per_minute=1)) as made:
        fleet = made.service.fleet
        fleet.change(Condition(ConditionStatus.FAILED, "it failed", 5.0))
        assert [(await made.complete("a")).status for _ in range(3)] == [503, 503, 503]
        fleet.change(OK)
        assert [(await made.complete("a")).status for _ in range(2)] == [200, 429]


async def test_tokens_a_minute_count_prompts_and_answers(tmp_path: Path) -> None:
    async with keyed(tmp_path, key("a", tokens_per_minute=10)) as made:
        first = await made.complete("a", max_tokens=8, ignore_eos=True)
        used = first.json["usage"]["total_tokens"]
        while used < 10:
            used += (await made.complete("a", max_tokens=8)).json["usage"]["total_tokens"]
        refused = await made.complete("a")
        assert refused.status == 429
        # the balance is 10 - used, and one token comes every six seconds
        assert refused.headers["Retry-After"] == str((1 - (10 - used)) * 6)


async def test_sequences_at_once_are_freed_when_they_end(tmp_path: Path) -> None:
    async with keyed(tmp_path, key("a", concurrent=2), key("b")) as made:
        made.worker.auto = False
        dispatcher = made.service.dispatcher
        running = asyncio.create_task(made.complete("a", n=2))
        async with asyncio.timeout(60):
            while not dispatcher.occupancy.running:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.005)
        refused = await made.complete("a")
        assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
        assert int(refused.headers["Retry-After"]) >= 1
        running.cancel()
        assert await dispatcher.wait_idle(60.0)
        made.worker.auto = True
        assert (await made.complete("a", n=2)).status == 200
        too_many = await made.complete("a", n=3)
        assert (too_many.status, too_many.error["param"]) == (400, "n")


async def test_keys_do_not_read_each_others_durable_requests(tmp_path: Path) -> None:
    async with keyed(tmp_path, key("a"), key("b")) as made:
        durable = {"Idempotency-Key": "one"}
        made_by_a = await made.service.post(
            "/v1/completions", PROMPT, headers=JSON | durable | {"x-api-key": "a"}
        )
        assert made_by_a.status == 200
        for name, status in (("b", 404), ("a", 200)):
            answer = await made.ask("DELETE", "/v1/requests", durable | {"x-api-key": name})
            assert answer.status == status


async def test_each_keys_sequences_are_cached_apart(tmp_path: Path) -> None:
    async with keyed(tmp_path, key("a"), key("b")) as made:
        for name in ("a", "b", "a"):
            assert (await made.complete(name)).status == 200
        scopes = [sent.scope for sent in made.worker.sent if isinstance(sent, Generate)]
        assert len(scopes) == 3
        assert scopes[0] == scopes[2] != scopes[1]
        assert "" not in scopes


async def test_a_model_is_unloaded_for_a_key_with_admin_only(tmp_path: Path) -> None:
    async with keyed(tmp_path, *EACH.values()) as made:
        body = {"messages": [], "keep_alive": 0}
        for held, status in ((Scope.GENERATE, 403), (Scope.ADMIN, 200)):
            headers = JSON | {"Authorization": f"Bearer {held}"}
            answer = await made.service.post("/api/chat", body, headers=headers)
            assert answer.status == status
