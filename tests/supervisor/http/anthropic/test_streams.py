"""Messages over time: waiting, errors before and in the middle, with Anthropic's own client."""

import asyncio
from typing import Any

import anthropic
import pytest

from gpufc.config import LimitsConfig
from tests.supervisor.dispatch.fakes import FAILED, MODEL, text_of, until
from tests.supervisor.http.anthropic.conftest import HELLO, ask, client_of, events, frames
from tests.supervisor.http.conftest import running
from tests.supervisor.http.test_streams import lose_every_replay

QUICK = LimitsConfig(first_byte_s=0.02, keepalive_comment_s=0.02)
RESULT_OF_NOTHING: Any = [{"role": "user", "content": [{"type": "tool_result", "content": {}}]}]
ASKED: Any = {"model": MODEL, "max_tokens": 8, "messages": HELLO}


async def test_a_waiting_stream_is_kept_alive_with_pings_before_and_after_its_start() -> None:
    async with running(QUICK) as service:
        body = {"messages": HELLO, "stream": True}
        async with service.http.post("/v1/messages", json=body) as response:
            for _ in range(3):
                assert await response.content.readuntil(b"\n\n") == PING
            worker = service.fleet.start_worker(auto=False)
            await until(lambda: worker.active)
            worker.step()
            while await response.content.readuntil(b"\n\n") == PING:
                pass
            while await response.content.readuntil(b"\n\n") != PING:
                pass
            worker.auto = True
            worker.go()
            names = [name for name, _ in frames(await response.read())]
        assert names[-1] == "message_stop"


PING = b'event: ping\ndata: {"type":"ping"}\n\n'


async def test_the_sdk_passes_over_pings_before_the_message() -> None:
    async with running(QUICK) as service, client_of(service) as client:
        async with client.messages.stream(**ASKED) as stream:
            service.fleet.start_worker()
            message = await stream.get_final_message()
        assert [block.type for block in message.content] == ["text"]
        assert await stream.get_final_text() == text_of("<user>hi")


async def test_an_error_in_a_stream_is_its_last_event_and_the_sdk_raises_it() -> None:
    async with running(QUICK) as service, client_of(service) as client:
        worker = service.fleet.start_worker(auto=False)
        async with client.messages.stream(**ASKED) as stream:
            await until(lambda: worker.active)
            worker.step()
            assert await anext(stream.text_stream)
            await lose_every_replay(service.fleet, worker)
            with pytest.raises(anthropic.APIStatusError, match="api_error"):
                await stream.until_done()


async def test_an_error_event_has_anthropic_s_shape() -> None:
    async with running(QUICK) as service:
        worker = service.fleet.start_worker(auto=False)
        asking = asyncio.create_task(ask(service, stream=True))
        await until(lambda: worker.active)
        worker.step()
        await lose_every_replay(service.fleet, worker)
        answer = await asking
        name, data = frames(answer.body)[-1]
        assert name == "error"
        assert set(data) == {"type", "error", "request_id"}
        assert data["error"]["type"] == "api_error"
        assert data["request_id"] == answer.headers["request-id"]
        assert events(answer.body[: answer.body.rindex(b"event: error")])[0].type == "message_start"


async def test_an_error_before_the_headers_is_an_ordinary_answer() -> None:
    async with running() as service, client_of(service) as client:
        asking = asyncio.create_task(client.messages.create(**ASKED, stream=True))
        await until(lambda: not service.dispatcher.idle)
        service.fleet.change(FAILED)
        with pytest.raises(anthropic.APIStatusError) as caught:
            await asking
        assert (caught.value.status_code, caught.value.type) == (503, "overloaded_error")
        assert caught.value.response.headers["Retry-After"] == "60"


async def test_a_refusal_is_anthropic_s_error_and_need_not_be_repeated() -> None:
    async with running() as service, client_of(service) as client:
        service.fleet.start_worker()
        image: Any = {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}}
        with pytest.raises(anthropic.BadRequestError) as caught:
            await client.messages.create(
                model=MODEL, max_tokens=8, messages=[{"role": "user", "content": [image]}]
            )
        error: Any = caught.value.body
        assert error["error"]["type"] == "invalid_request_error"
        assert error["error"]["message"].startswith("messages[0].content[0]: ")
        assert error["request_id"] == caught.value.request_id
        assert caught.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 1}]}, "content"),
        ({"messages": HELLO, "temperature": -1}, "temperature"),
        ({"messages": HELLO, "max_tokens": "many"}, "max_tokens"),
        ({"messages": HELLO, "stop_sequences": "x"}, "stop_sequences"),
        ({"messages": RESULT_OF_NOTHING}, "type"),
    ],
)
async def test_a_wrong_value_is_named(body: dict[str, Any], words: str) -> None:
    async with running() as service:
        service.fleet.start_worker()
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            answer = await service.post(path, body)
            assert answer.status == 400
            assert answer.json["type"] == "error"
            assert answer.json["error"]["type"] == "invalid_request_error"
            assert words in answer.json["error"]["message"]


async def test_a_missing_route_and_a_wrong_method_have_anthropic_s_shape() -> None:
    async with running() as service:
        found = [await service.post("/v1/messages/batches", {}), await service.get("/v1/messages")]
        assert [(one.status, one.json["error"]["type"]) for one in found] == [
            (404, "not_found_error"),
            (405, "invalid_request_error"),
        ]
