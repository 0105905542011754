"""Streams of Ollama's and llama-server's routes over real processes: they outlive their worker, and
end once."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.integration.fake_service import fake_text
from tests.service import Gains, Service, sse_events

N_TOKENS = 60


@pytest.fixture
def running(plain: Service) -> Service:
    return plain


async def lines(running: Service, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects of a stream that ended with one last line."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(running.url + path, json=body) as response,
    ):
        assert response.status == 200, await response.text()
        assert response.content_type == "application/x-ndjson"
        text = await response.text()
    found = [json.loads(line) for line in text.removesuffix("\n").split("\n")]
    assert [line["done"] for line in found] == [False] * (len(found) - 1) + [True]
    return found


async def test_a_stream_outlives_its_worker_and_ends_once(running: Service, tmp_path: Path) -> None:
    gains, once = Gains(running), tmp_path / "done"
    prompt = f"[[kill@13 once={once}]] goes on"
    body = {"prompt": prompt, "raw": True, "options": {"num_predict": N_TOKENS}}
    *begin, last = await lines(running, "/api/generate", body)
    assert once.exists()
    assert gains.restarts() == 1
    assert "".join(line["response"] for line in begin) == fake_text(prompt, N_TOKENS)
    assert (last["done_reason"], last["eval_count"]) == ("length", N_TOKENS)
    assert last["eval_duration"] > 0


async def test_a_call_whose_worker_dies_inside_it_comes_whole(
    running: Service, tmp_path: Path
) -> None:
    once = tmp_path / "done"
    text = '<tool_call>{"name": "lookup", "arguments": {"word": "tea"}}</tool_call>'
    said = f"[[say:{text}]][[stop@{len(text)}]][[kill@40 once={once}]]"
    parameters = {"type": "object", "properties": {"word": {"type": "string"}}}
    body = {
        "messages": [{"role": "user", "content": said}],
        "tools": [
            {"type": "function", "function": {"name": "lookup", "parameters": parameters}},
        ],
    }
    found = await lines(running, "/api/chat", body)
    assert once.exists()
    (call,) = [call for line in found for call in line["message"].get("tool_calls", [])]
    assert call["function"] == {"index": 0, "name": "lookup", "arguments": {"word": "tea"}}
    assert "".join(line["message"]["content"] for line in found) == ""
    assert found[-1]["done_reason"] == "stop"


async def test_a_native_completion_outlives_its_worker_and_ends_once(
    running: Service, tmp_path: Path
) -> None:
    gains, once = Gains(running), tmp_path / "done"
    prompt = f"[[kill@13 once={once}]] goes on"
    body = {"prompt": prompt, "n_predict": N_TOKENS, "stream": True}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{running.url}/completion", json=body) as response,
    ):
        *begin, last = [json.loads(event) for event in await sse_events(response)]
    assert once.exists()
    assert gains.restarts() == 1
    assert "".join(event["content"] for event in begin) == fake_text(prompt, N_TOKENS)
    assert [event["stop"] for event in (*begin, last)] == [False] * len(begin) + [True]
    assert (last["stop_type"], last["tokens_predicted"]) == ("limit", N_TOKENS)


@pytest.mark.parametrize("tag", ["", ":latest"])
async def test_a_model_is_found_with_and_without_a_tag(running: Service, tag: str) -> None:
    async with aiohttp.ClientSession(running.url) as session:
        async with session.get("/api/tags") as response:
            (listed,) = (await response.json())["models"]
        assert listed["name"].endswith(":latest")
        name = listed["name"].removesuffix(":latest") + tag
        async with session.post("/api/show", json={"model": name}) as response:
            assert response.status == 200
            shown = await response.json()
    assert shown["capabilities"] == ["completion", "insert", "tools"]
    assert len(listed["digest"]) == 64
