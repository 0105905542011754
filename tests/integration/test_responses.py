"""A Responses stream outlives its worker: its events stay in order, and it ends once."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.service import Service
from tests.supervisor.http.responses.conftest import parsed

CALL = '<tool_call>{"name": "f", "arguments": {"a": "1"}}</tool_call>'
SAID = f"<think>a thought of some length</think>I call {CALL}"
ITEMS = ["reasoning", "message", "function_call", "message"]
TOOLS = [
    {
        "type": "function",
        "name": "f",
        "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
    }
]


@pytest.fixture
def running(plain: Service) -> Service:
    return plain


async def stream(session: aiohttp.ClientSession, url: str, prompt: str) -> list[Any]:
    body = {"input": prompt, "tools": TOOLS, "max_output_tokens": 200, "stream": True}
    async with session.post(f"{url}/v1/responses", json=body) as response:
        assert response.status == 200
        return parsed(await response.read())


def said(events: list[Any]) -> list[dict[str, Any]]:
    """The whole output without ids."""
    items = [item.to_dict() for item in events[-1].response.output]
    return [
        {name: value for name, value in item.items() if name not in ("id", "call_id")}
        for item in items
    ]


@pytest.mark.parametrize("position", [5, 80])
async def test_the_events_go_on_after_the_death_of_the_worker(
    running: Service, tmp_path: Path, position: int
) -> None:
    once = tmp_path / "killed"
    prompt = f"[[say:{SAID}]][[stop@120]][[kill@{position} once={once}]]"
    epoch = running.worker()["epoch"]
    async with aiohttp.ClientSession() as session:
        killed = await stream(session, running.url, prompt)
        assert once.exists()
        undisturbed = await stream(session, running.url, prompt)
    assert running.worker()["epoch"] > epoch
    assert said(killed) == said(undisturbed)
    assert [item["type"] for item in said(killed)] == ITEMS
