"""Responses that are remembered: read, listed, continued, referred to, forgotten."""

from typing import Any

import msgspec
import pytest
from aiohttp import web
from openai.types.responses import Response, ResponseItemList

from supervisor.dispatch.request import Principal, Scope
from supervisor.http.edge.context import SERVICES
from supervisor.http.edge.middleware import Authenticator
from supervisor.http.edge.server import FrontRunner
from supervisor.http.routes import create_web_app
from tests.supervisor.http.conftest import Answer, Service, running
from tests.supervisor.http.responses.conftest import Speaker, events_of, parsed, respond, whole
from tests.supervisor.http.test_durable import JSON

PROMPT = "<user>one<assistant>said<user>two"


async def delete(service: Service, path: str) -> Answer:
    async with service.http.delete(path) as response:
        return Answer(response.status, response.headers, await response.read())


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_response_is_read_as_it_was_answered(speaking: Speaker, streamed: bool) -> None:
    service = speaking("said")
    if streamed:
        made = (await events_of(service, "one"))[-1].response
    else:
        made = await whole(service, "one")
    found = await service.get(f"/v1/responses/{made.id}")
    assert Response.model_validate(found.json) == made


async def test_a_conversation_goes_on_from_a_response(speaking: Speaker) -> None:
    service = speaking("said")
    first = await whole(service, "one", instructions="only for the first")
    second = await whole(service, "two", previous_response_id=first.id)
    assert second.usage is not None
    assert second.usage.input_tokens == len(PROMPT)
    assert second.previous_response_id == first.id
    third = await whole(service, "3", previous_response_id=second.id)
    assert third.usage is not None
    assert third.usage.input_tokens == len(f"{PROMPT}<assistant>said<user>3")


async def test_a_call_is_continued_with_its_result_alone(speaking: Speaker) -> None:
    service = speaking("<call f>{}", "</call>")
    tools = [{"type": "function", "name": "f"}]
    first = await whole(service, "go", tools=tools)
    (call,) = first.output
    assert call.type == "function_call"
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "42"}
    second = await whole(speaking("ok"), [result], previous_response_id=first.id)
    assert second.usage is not None
    assert second.usage.input_tokens == len("<user>go<assistant><tool>42")


async def test_an_item_may_be_sent_as_a_reference(speaking: Speaker) -> None:
    service = speaking("said")
    first = await whole(service, "one")
    given = [
        {"role": "user", "content": "one"},
        {"type": "item_reference", "id": first.output[0].id},
        {"role": "user", "content": "two"},
    ]
    answer = await whole(service, given)
    assert answer.usage is not None
    assert answer.usage.input_tokens == len(PROMPT)
    given[1]["id"] = "msg_unknown"
    refused = await respond(service, given)
    assert (refused.status, refused.error["param"]) == (400, "input[1].id")


async def test_references_do_not_make_a_conversation_of_any_size(speaking: Speaker) -> None:
    """A few kilobytes may name a remembered item thousands of times."""
    service = speaking("word " * 10_000)
    first = await whole(service, "one")
    given = [{"type": "item_reference", "id": first.output[0].id}] * 200
    answer = await respond(service, given)
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")


async def test_a_response_that_is_not_to_be_stored_is_forgotten(speaking: Speaker) -> None:
    made = await whole(speaking("said"), store=False)
    assert (await speaking("x").get(f"/v1/responses/{made.id}")).status == 404


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_unknown_previous_response_has_its_own_code(
    service: Service, streamed: bool
) -> None:
    answer = await respond(service, previous_response_id="resp_0", stream=streamed)
    assert answer.status == 400
    assert answer.error["code"] == "previous_response_not_found"
    assert answer.error["param"] == "previous_response_id"


async def test_an_unknown_response_is_not_found(service: Service) -> None:
    for path in ("/v1/responses/resp_0", "/v1/responses/resp_0/input_items"):
        answer = await service.get(path)
        assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert (await delete(service, "/v1/responses/resp_0")).status == 404
    assert (await service.post("/v1/responses/resp_0/cancel", {})).status == 404


async def test_a_deleted_response_is_forgotten(speaking: Speaker) -> None:
    service = speaking("said")
    made = await whole(service)
    path = f"/v1/responses/{made.id}"
    deleted = await delete(service, path)
    assert deleted.json == {"id": made.id, "object": "response", "deleted": True}
    assert (await service.get(path)).status == 404
    assert (await respond(service, previous_response_id=made.id)).status == 400


async def test_only_what_runs_in_the_background_could_be_cancelled(speaking: Speaker) -> None:
    service = speaking("said")
    made = await whole(service)
    answer = await service.post(f"/v1/responses/{made.id}/cancel", data=b"", headers={})
    assert answer.status == 400
    assert "background" in answer.error["message"]


async def test_a_remembered_response_is_not_streamed(speaking: Speaker) -> None:
    service = speaking("said")
    made = await whole(service)
    answer = await service.get(f"/v1/responses/{made.id}?stream=true")
    assert (answer.status, answer.error["param"]) == (400, "stream")


async def test_input_items_are_listed_in_pages(speaking: Speaker) -> None:
    service = speaking("said")
    first = await whole(service, "one")
    given = [
        {"role": "user", "content": [{"type": "input_text", "text": "two"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "42"},
    ]
    made = await whole(service, given, previous_response_id=first.id)
    path = f"/v1/responses/{made.id}/input_items"

    async def page(query: str) -> ResponseItemList:
        return ResponseItemList.model_validate((await service.get(f"{path}?{query}")).json)

    listed = await page("order=asc")
    kinds = ["message", "message", "message", "function_call", "function_call_output"]
    assert [item.type for item in listed.data] == kinds
    assert not listed.has_more
    start = await page("limit=2")
    assert [item.type for item in start.data] == kinds[::-1][:2]
    assert start.has_more
    rest = await page(f"limit=100&after={start.last_id}")
    assert [*start.data, *rest.data] == listed.data[::-1]
    assert not rest.has_more
    for wrong in ("limit=0", "limit=x", "order=up", "after=none"):
        assert (await service.get(f"{path}?{wrong}")).status == 400


async def test_a_durable_stream_is_resumed_and_remembered(speaking: Speaker) -> None:
    service = speaking("<think>let", " me</think>", "said", " so")
    headers = JSON | {"Idempotency-Key": "key"}
    body = {"input": "hi", "stream": True}
    first = (await service.post("/v1/responses", body, headers=headers)).body
    events = parsed(first)
    frames = first.split(b"\n\n")[:-1]
    named = [n for n, frame in enumerate(frames) if frame.startswith(b"id: ")]
    assert len(named) >= 5
    for at in named:
        last = frames[at].split(b"\n")[0].removeprefix(b"id: ").decode()
        again = await service.post("/v1/responses", body, headers=headers | {"Last-Event-ID": last})
        rest = [frame.split(b"\n") for frame in again.body.split(b"\n\n")[:-1]]
        assert _gained([frame.split(b"\n") for frame in frames[: at + 1]] + rest) == _gained(
            [frame.split(b"\n") for frame in frames]
        )
    assert (await service.get(f"/v1/responses/{events[-1].response.id}")).status == 200


def _gained(frames: list[list[bytes]]) -> dict[str, Any]:
    """What events add up to, without their numbers: deltas by item, and the other types."""
    found: dict[str, Any] = {"other": []}
    for frame in frames:
        event = msgspec.json.decode(frame[-1].removeprefix(b"data: "))
        if event["type"].endswith(".delta"):
            found[event["item_id"]] = found.get(event["item_id"], "") + event["delta"]
        else:
            found["other"].append(event["type"])
    return found


async def test_one_principal_never_reads_another_s_responses() -> None:
    def by_header(request: web.Request) -> Principal:
        return Principal(request.headers["X-Who"], frozenset({Scope.GENERATE}))

    async with running() as service:
        app = create_web_app(service.app[SERVICES], Authenticator(by_header))
        await service.stop()
        service.runner = FrontRunner(app, service.config.limits)
        await service.start()
        service.fleet.start_worker()

        async def ask(who: str, given: Any = "hi", **fields: Any) -> Answer:
            body = {"input": given, **fields}
            return await service.post("/v1/responses", body, headers=JSON | {"X-Who": who})

        async def get(who: str, path: str) -> int:
            async with service.http.get(path, headers={"X-Who": who}) as response:
                return response.status

        made = (await ask("me")).json
        path, reference = f"/v1/responses/{made['id']}", [{"id": made["output"][0]["id"]}]
        assert await get("me", path) == await get("me", f"{path}/input_items") == 200
        assert await get("you", path) == await get("you", f"{path}/input_items") == 404
        for status, who in ((200, "me"), (400, "you")):
            assert (await ask(who, previous_response_id=made["id"])).status == status
            assert (await ask(who, reference)).status == status
