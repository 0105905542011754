"""Forced calls of a whole service, in the forms that public clients ask for them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from supervisor.answers.parsers.answer import HELD
from tests.integration.fake_service import FAKE
from tests.service import Gains, Service, service, sse_events

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 4},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "unit": {"enum": ["c", "f"]},
    },
    "required": ["city", "days", "unit"],
    "additionalProperties": False,
}
PERSON = {
    "properties": {
        "name": {"title": "Name", "type": "string", "maxLength": 8},
        "age": {"title": "Age", "type": "integer", "maximum": 120, "minimum": 0},
    },
    "required": ["age", "name"],
    "type": "object",
}
NOTE = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
SCHEMAS = {"get_weather": WEATHER, "Person": PERSON, "note": NOTE}


def tool(name: str, **more: Any) -> dict[str, Any]:
    described = {"name": name, "description": name, "parameters": SCHEMAS[name]}
    return {"type": "function", "function": described | more}


NAMED = {"type": "function", "function": {"name": "get_weather"}}
ASKED: dict[str, Any] = {
    "tools": [tool("get_weather"), tool("Person")],
    "seed": 3,
    "max_tokens": 900,
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("tools") / "run"
    environ = FAKE | {"GPUFC_FAKE_SCRIPT": "step_ms=0", "GPUFC_N_CTX": "16384"}
    with service(folder, environ=environ) as started:
        yield started


@pytest.fixture
async def session() -> Any:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def ask(
    session: aiohttp.ClientSession, running: Service, text: str = "Lima?", **fields: Any
) -> Any:
    """The one choice of an answer that is not streamed."""
    body = ASKED | {"messages": [{"role": "user", "content": text}]} | fields
    async with session.post(f"{running.url}/v1/chat/completions", json=body) as response:
        assert response.status == 200, await response.text()
        answer = ChatCompletion.model_validate(await response.json(), strict=True)
    return answer.choices[0]


async def streamed(
    session: aiohttp.ClientSession, running: Service, text: str, **fields: Any
) -> list[ChatCompletionChunk]:
    body = ASKED | {"messages": [{"role": "user", "content": text}], "stream": True} | fields
    async with session.post(f"{running.url}/v1/chat/completions", json=body) as response:
        assert response.status == 200, await response.text()
        *events, done = await sse_events(response)
    assert done == "[DONE]"
    return [ChatCompletionChunk.model_validate(json.loads(event)) for event in events]


def calls_of(chunks: list[ChatCompletionChunk]) -> list[list[str]]:
    """Name and arguments of each call, as a client joins them."""
    calls: list[list[str]] = []
    for chunk in chunks:
        for choice in chunk.choices:
            assert not choice.delta.content
            for delta in choice.delta.tool_calls or ():
                assert delta.function is not None
                if delta.index == len(calls):
                    assert (delta.type, bool(delta.id)) == ("function", True)
                    calls.append([delta.function.name or "", ""])
                calls[delta.index][1] += delta.function.arguments or ""
    return calls


def is_valid(name: str, arguments: str) -> bool:
    return Draft202012Validator(SCHEMAS[name]).is_valid(json.loads(arguments))


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"get_weather", "Person"}),
        ("any", {"get_weather", "Person"}),
        (NAMED, {"get_weather"}),
        ({"type": "function", "name": "Person"}, {"Person"}),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}},
            {"get_weather"},
        ),
    ],
)
async def test_a_choice_that_demands_a_call_gets_one(
    session: aiohttp.ClientSession, running: Service, choice: Any, names: set[str]
) -> None:
    answer = await ask(session, running, tool_choice=choice)
    assert answer.finish_reason == "tool_calls"
    assert answer.message.content is None
    for call in answer.message.tool_calls:
        assert call.function.name in names
        assert is_valid(call.function.name, call.function.arguments)


async def test_a_forced_call_comes_alone_unless_several_are_asked_for(
    session: aiohttp.ClientSession, running: Service
) -> None:
    for fields in (
        {"tool_choice": NAMED},
        {"tool_choice": "required"},
        {"tool_choice": NAMED, "parallel_tool_calls": True},
    ):
        answer = await ask(session, running, **fields)
        assert len(answer.message.tool_calls) == 1


async def test_a_streamed_call_is_the_same_call(
    session: aiohttp.ClientSession, running: Service
) -> None:
    options = {"stream_options": {"include_usage": True}}
    chunks = await streamed(session, running, "Lima?", tool_choice=NAMED, **options)
    whole = await ask(session, running, tool_choice=NAMED)
    [call] = whole.message.tool_calls
    assert calls_of(chunks) == [[call.function.name, call.function.arguments]]
    *_, last, usage = chunks
    assert last.choices[0].finish_reason == "tool_calls"
    assert usage.choices == []
    assert usage.usage is not None


async def test_a_worker_killed_at_any_token_changes_nothing_of_a_forced_call(
    session: aiohttp.ClientSession, running: Service, tmp_path: Path
) -> None:
    """The call's beginning is forced, so that only its arguments have a token in each step."""
    n_killed = 0
    for position in range(56, 78):
        once = tmp_path / f"kill-{position}"
        prompt = f"[[kill@{position} once={once}]] Lima?"
        killed = calls_of(await streamed(session, running, prompt, tool_choice=NAMED))
        [[name, arguments]] = killed
        assert is_valid(name, arguments)
        if once.exists():
            n_killed += 1
            again = await streamed(session, running, prompt, tool_choice=NAMED)
            assert calls_of(again) == killed, position
    assert n_killed >= 5


async def test_what_was_sent_of_a_long_call_stays_when_the_worker_is_killed(
    session: aiohttp.ClientSession, running: Service, tmp_path: Path
) -> None:
    """Arguments leave in pieces once a call is longer than what is held back."""
    note = tool("note")
    arguments = json.dumps({"text": "all that there is to say, " * 40})
    said = f'<tool_call>\n{{"name": "note", "arguments": {arguments}}}\n</tool_call>'
    asked = {"tools": [note], "tool_choice": {"type": "function", "function": {"name": "note"}}}
    for position in (HELD - 1, HELD + 40, HELD + 41, len(said) - 30):
        once = tmp_path / f"kill-{position}"
        prompt = f"[[kill@{position} once={once}]][[say:{said}]] note"
        killed = await streamed(session, running, prompt, max_tokens=2000, **asked)
        assert once.exists()
        assert calls_of(killed) == [["note", arguments]], position
        assert sum(bool(chunk.choices[0].delta.tool_calls) for chunk in killed) > 3


async def test_a_strict_function_that_no_mask_can_enforce_is_refused_and_another_one_is_not(
    session: aiohttp.ClientSession, running: Service
) -> None:
    gains = Gains(running)
    unique = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    body = ASKED | {"messages": [{"role": "user", "content": "x"}], "tool_choice": "required"}
    for strict, status in ((True, 400), (False, 200)):
        function = {"name": "f", "parameters": unique, "strict": strict}
        tools = [{"type": "function", "function": function}]
        url = f"{running.url}/v1/chat/completions"
        async with session.post(url, json=body | {"tools": tools, "max_tokens": 60}) as response:
            assert response.status == status
            if status == 400:
                error = (await response.json())["error"]
                assert (error["code"], error["param"]) == ("invalid_grammar", "tools")
                assert "function f: " in error["message"]
                assert "uniqueItems" in error["message"]
    assert gains.restarts() == 0


def deep(levels: int) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        found = {"type": "object", "properties": {"a": found}, "required": ["a"]}
    return found


BOMBS: dict[str, dict[str, Any]] = {
    "depth": deep(20),
    "choices": {"enum": [f"value {n}" for n in range(100)]},
    "counts": {"type": "array", "items": {"type": "string", "minLength": 9999}, "minItems": 9999},
    "pattern": {"type": "string", "pattern": "^((a*)*(b|a)*a(a|b){200}){1,9999}$"},
    "loop": {"$ref": "#/properties/a"},
    "branches": {
        "oneOf": [{"properties": {f"p{n}": {"type": "integer"}}} for n in range(120)],
    },
    "multiples": {"type": "integer", "multipleOf": 9_999_991},
}


@pytest.mark.parametrize("strict", [False, True])
async def test_a_function_that_is_hard_to_compile_is_answered_or_refused_and_hurts_no_worker(
    session: aiohttp.ClientSession, running: Service, strict: bool
) -> None:
    gains = Gains(running)
    for name, schema in BOMBS.items():
        parameters = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
        function = {"name": "f", "parameters": parameters, "strict": strict}
        body = ASKED | {
            "messages": [{"role": "user", "content": "x"}],
            "tool_choice": "required",
            "tools": [{"type": "function", "function": function}],
            "max_tokens": 40,
        }
        async with session.post(f"{running.url}/v1/chat/completions", json=body) as response:
            assert response.status in (200, 400), name
            if response.status == 400:
                assert (await response.json())["error"]["code"] == "invalid_grammar", name
    assert gains.restarts() == 0
