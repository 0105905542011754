"""The relay between agents and a service: which requests it changes, and what it keeps."""

from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.clients.agents.relay import LIMITS, Demand, bounded, demanding, relay

DEMAND = Demand("read", {"path": "/note"})
SCHEMA = DEMAND.schema
CHAT = {"type": "function", "function": {"name": "read", "parameters": {"type": "object"}}}
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "go"}], "tools": [CHAT]},
    "/v1/responses": {"input": [{"role": "user"}], "tools": [{"type": "function", "name": "read"}]},
    "/v1/messages": {"messages": [{"role": "user", "content": "go"}], "tools": [{"name": "read"}]},
}
DONE: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "tool", "content": "x"}]},
    "/v1/responses": {"input": [{"type": "function_call_output", "output": "x"}]},
    "/v1/messages": {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
}
CHOICES = {
    "/v1/chat/completions": {"type": "function", "function": {"name": "read"}},
    "/v1/responses": {"type": "function", "name": "read"},
    "/v1/messages": {"type": "tool", "name": "read"},
}


def schema(tool: dict[str, Any]) -> Any:
    """A tool's schema in any dialect."""
    return tool.get("input_schema") or tool.get("function", tool)["parameters"]


@pytest.mark.parametrize("path", ASKED)
def test_a_call_is_demanded_until_its_result_is_there(path: str) -> None:
    changed, is_demanded = demanding(path, ASKED[path], DEMAND)
    assert is_demanded
    assert changed["tool_choice"] == CHOICES[path]
    later, is_demanded = demanding(path, ASKED[path] | DONE[path], DEMAND)
    assert not is_demanded
    assert "tool_choice" not in later
    # both prompts have the same tools, so that the second begins as the first
    assert [schema(tool) for tool in later["tools"]] == [SCHEMA]
    assert later["tools"] == changed["tools"]


@pytest.mark.parametrize("path", ASKED)
def test_a_request_without_the_tool_passes_as_it_is(path: str) -> None:
    for body in (ASKED[path] | {"tools": []}, None, ["x"]):
        assert demanding(path, body, DEMAND) == (body, False)
    assert demanding(path, ASKED[path], Demand("other", {})) == (ASKED[path], False)


@pytest.mark.parametrize("path", ASKED)
def test_an_answer_is_bounded_by_the_dialect_s_own_field(path: str) -> None:
    given = ASKED[path] | {"max_tokens": 8192}
    changed = bounded(path, given, 48)
    assert changed == ASKED[path] | {LIMITS[path.removeprefix("/v1")]: 48}


def test_other_requests_are_not_bounded() -> None:
    assert bounded("/v1/messages/count_tokens", {"a": 1}, 48) == {"a": 1}
    assert bounded("/v1/messages", None, 48) is None


async def test_an_exchange_is_kept_as_both_sides_have_seen_it() -> None:
    received = []

    async def answer(request: web.Request) -> web.Response:
        received.append(await request.json())
        return web.json_response({"said": "yes"}, status=201)

    app = web.Application()
    app.router.add_post("/v1/messages", answer)
    body = ASKED["/v1/messages"]
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        with relay(str(server.make_url("")).rstrip("/"), DEMAND) as between:
            async with session.post(f"{between.url}/v1/messages", json=body) as found:
                assert (found.status, await found.json()) == (201, {"said": "yes"})
    [kept] = between.exchanges
    assert (kept.body, kept.status, kept.demanded) == (body, 201, True)
    assert received[0]["tool_choice"] == CHOICES["/v1/messages"]
