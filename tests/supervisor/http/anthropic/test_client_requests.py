"""Requests as clients send them: Claude Code, Anthropic's client for Python, pi.

The bodies have the form of real ones, and a content of their own.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from gpufc.protocol import Prepare
from tests.supervisor.dispatch.fakes import FakeWorker
from tests.supervisor.http.anthropic.conftest import added_up, events
from tests.supervisor.http.conftest import Answer, Service, running

FOLDER = Path(__file__).parent / "bodies"
CLIENTS = sorted(path.stem for path in FOLDER.glob("*.json"))


def request(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


async def send(service: Service, name: str, **fields: Any) -> Answer:
    given = request(name)
    body = given["body"] | {"model": "default"} | fields
    return await service.post(given["path"], body, headers=given["headers"])


def said(worker: FakeWorker) -> list[tuple[str, str]]:
    """The turns of the latest prompt."""
    prompt: Any = [message for message in worker.sent if isinstance(message, Prepare)][-1].prompt
    return [(turn.role, turn.content) for turn in prompt.messages]


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_client_s_request_is_answered_streamed_and_whole(
    service: Service, name: str
) -> None:
    streamed = await send(service, name)
    assert streamed.status == 200, streamed.body
    whole = await send(service, name, stream=False)
    read = events(streamed.body)
    assert [event.type for event in read[-2:]] == ["message_delta", "message_stop"]
    assert read[0].message.usage.input_tokens > 0
    texts = [block["text"] for block in added_up(read)]
    assert texts == [block["text"] for block in whole.json["content"]]


async def test_claude_code_s_prefix_is_the_same_whatever_its_billing_line_says() -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        body = request("claude_code")["body"]
        prompts = []
        for changing in ("cch=1f2e3;", "cch=9c0d1;"):
            system = [{"type": "text", "text": f"x-anthropic-billing-header: {changing}"}]
            await send(service, "claude_code", system=system + body["system"][1:])
            prompts.append(said(worker))
        assert prompts[0] == prompts[1]
        assert prompts[0] == [
            ("system", "You are an agent for code.\n\nLong rules stand here."),
            ("user", "<system-reminder>\nBe careful.\n</system-reminder>\n\nList the files."),
            ("system", "Available agent types: none."),
        ]


async def test_claude_code_s_server_tools_are_left_out(service: Service) -> None:
    answer = await send(service, "claude_code")
    assert answer.headers["x-gpufc-skipped-tools"] == "web_search_20250305"


async def test_a_picture_in_a_tool_s_result_does_not_end_the_session() -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        assert (await send(service, "claude_code_results")).status == 200
        assert said(worker)[3:] == [
            ("tool", "hello\n\n[image left out: the model reads text only]"),
            ("tool", "Error: not allowed"),
            ("user", "Only a.txt please."),
            ("system", "1000 tokens left"),
            ("assistant", "Understood."),
            ("user", "n\nnotes\n\nGo on."),
        ]


async def test_messages_that_only_set_the_effort_add_nothing() -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        assert (await send(service, "pi")).status == 200
        assert said(worker) == [
            ("user", "Think a little."),
            ("assistant", "Yes."),
            ("user", "Now be quick."),
        ]


async def test_claude_code_s_other_calls_are_answered_quietly(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await service.get("/api/hello")).status == 200
    async with service.http.head("/api/hello") as response:
        assert response.status == 200
    events = {"events": [{"event_type": "test", "event_data": {"name": "none"}}]}
    assert (await service.post("/api/event_logging/batch", events)).status == 200
    assert not caplog.records
