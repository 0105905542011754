"""Requests in the forms that public clients send, to a service in real processes.

Answers are checked with the types of OpenAI's client.
"""

import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.integration.fake_service import FAKE
from tests.service import Service, service, sse_events


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("clients") / "run"
    with service(folder, environ=FAKE | {"GPUFC_N_CTX": "1024"}) as started:
        yield started


def function(name: str, *required: str, **more: Any) -> dict[str, Any]:
    """A tool whose parameters are texts."""
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {key: {"type": "string", "title": key} for key in required},
        "required": list(required),
        "additionalProperties": False,
    }
    described = {"name": name, "description": f"Does {name}", "parameters": schema, **more}
    return {"type": "function", "function": described}


def called(own_id: str, name: str, **arguments: Any) -> dict[str, Any]:
    text = json.dumps(arguments)
    return {"id": own_id, "type": "function", "function": {"name": name, "arguments": text}}


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def cached(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]


ROUND_TRIP = {
    "messages": [
        said("developer", "One sentence."),
        said("user", "The time in Bern and Quito?"),
        said(
            "assistant",
            None,
            refusal=None,
            tool_calls=[called("c1", "clock", city="Bern"), called("c2", "clock", city="Quito")],
        ),
        said("tool", [{"type": "text", "text": "11 "}, {"type": "text", "text": "h"}],
             tool_call_id="c2"),
        said("tool", "17 h", tool_call_id="c1"),
    ],
    "tools": [function("clock", "city", strict=True)],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "max_completion_tokens": 24,
    "store": False,
    "metadata": {"for": "a test"},
    "service_tier": "auto",
    "user": "u",
    "prompt_cache_key": "k",
    "safety_identifier": "s",
}  # fmt: skip
EDITOR = {
    "temperature": 0,
    "messages": [said("system", cached("Edit.")), said("user", cached("Swap a and b."))],
    "max_completion_tokens": 8192,
    "tools": [function("read", "path"), function("mcp--notes--add", "text", strict=False)],
    "parallel_tool_calls": True,
}
CODING_AGENT = {
    "max_tokens": 32000,
    "temperature": 0,
    "top_p": 1,
    "messages": [
        said("system", "Write code."),
        said("user", "Which files?"),
        said("assistant", None, reasoning_content="Look.", tool_calls=[called("x", "ls", p=".")]),
        said("tool", "a.c", tool_call_id="x"),
    ],
    "tools": [function("ls", "p"), function("invalid", "tool", "error")],
    "tool_choice": "auto",
}
WEB_UI = {
    "messages": [said("system", "Be nice."), said("user", "Hello")],
    "max_tokens": 20.0,
    "temperature": 0.7,
    "frequency_penalty": 0.0,
    "logit_bias": {"5": -1},
    "reasoning_effort": "low",
    "tools": [function("lookup", "word")],
}
NULLS = {
    "messages": [said("user", "Hi", name=None)],
    "tools": [function("noop", strict=None)],
    "max_tokens": 8,
} | dict.fromkeys(
    ["tool_choice", "response_format", "stop", "seed", "logprobs", "top_logprobs", "logit_bias"]
)
BODIES = {
    "round trip": ROUND_TRIP,
    "editor": EDITOR,
    "coding agent": CODING_AGENT,
    "web interface": WEB_UI,
    "nulls": NULLS,
}


async def post(running: Service, body: dict[str, Any]) -> aiohttp.ClientResponse:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{running.url}/v1/chat/completions", json=body) as response,
    ):
        await response.read()
        return response


@pytest.mark.parametrize("name", BODIES)
async def test_a_client_s_request_is_answered(running: Service, name: str) -> None:
    response = await post(running, BODIES[name])
    assert response.status == 200, await response.text()
    answer = ChatCompletion.model_validate(await response.json(), strict=True)
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("name", BODIES)
async def test_a_client_s_request_is_answered_as_a_stream(running: Service, name: str) -> None:
    asked = BODIES[name] | {"stream": True, "stream_options": {"include_usage": True}}
    response = await post(running, asked)
    assert response.status == 200, await response.text()
    assert response.content_type == "text/event-stream"
    lines = (await response.text()).split("\n")
    *events, done = [line[6:] for line in lines if line.startswith("data: ")]
    assert done == "[DONE]"
    chunks = [ChatCompletionChunk.model_validate(json.loads(event)) for event in events]
    *choices, last = chunks
    assert (choices[0].choices[0].delta.role, last.choices) == ("assistant", [])
    assert [chunk.usage is None for chunk in chunks] == [True] * len(choices) + [False]
    assert [chunk.choices[0].finish_reason for chunk in choices][-1] == "length"


async def test_tools_of_other_types_are_left_out_and_named(running: Service) -> None:
    for stream in (False, True):
        tools = [{"type": "web_search"}, function("lookup", "word")]
        response = await post(running, WEB_UI | {"tools": tools, "stream": stream})
        assert response.status == 200
        assert response.headers["x-gpufc-skipped-tools"] == "web_search"


async def test_an_end_token_is_counted_and_a_last_answer_continued(running: Service) -> None:
    messages = [said("user", "[[stop@3]]"), said("assistant", "Once upon")]
    answer = await (await post(running, {"messages": messages})).json()
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert len(answer["choices"][0]["message"]["content"]) == 3
    assert answer["usage"]["completion_tokens"] == 4
    opened = await (await post(running, {"messages": messages[:1]})).json()
    added = answer["usage"]["prompt_tokens"] - opened["usage"]["prompt_tokens"]
    assert added == len("Once upon")


@pytest.mark.parametrize("parallel", [True, False])
async def test_a_call_is_answered_whole_and_streamed(running: Service, parallel: bool) -> None:
    text = "".join(
        f'<tool_call>{{"name": "lookup", "arguments": {{"word": "{word}"}}}}</tool_call>'
        for word in ("tea", "cup")
    )
    asked = {
        "messages": [said("user", f"[[say:{text}]][[stop@{len(text)}]]")],
        "tools": [function("lookup", "word")],
        "parallel_tool_calls": parallel,
    }
    expected = [{"word": "tea"}, {"word": "cup"}][: 2 if parallel else 1]
    whole = ChatCompletion.model_validate(await (await post(running, asked)).json(), strict=True)
    (choice,) = whole.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    calls = [call for call in choice.message.tool_calls or [] if call.type == "function"]
    assert [json.loads(call.function.arguments) for call in calls] == expected

    lines = (await (await post(running, asked | {"stream": True})).text()).split("\n")
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    choices = [ChatCompletionChunk.model_validate(event).choices[0] for event in events]
    deltas = [call for choice in choices for call in choice.delta.tool_calls or []]
    begun = [call for call in deltas if call.id]
    assert [(call.index, call.type) for call in begun] == list(
        enumerate(["function"] * len(expected))
    )
    for index, arguments in enumerate(expected):
        own = [call.function for call in deltas if call.index == index]
        joined = "".join(function.arguments or "" for function in own if function)
        assert json.loads(joined) == arguments
    assert choices[-1].finish_reason == "tool_calls"


async def test_logit_bias_may_be_texts_and_pairs(running: Service) -> None:
    async def answer(bias: Any) -> str:
        asked = {"messages": [said("user", "Hi")], "max_tokens": 1, "logit_bias": bias}
        response = await post(running, asked)
        assert response.status == 200, await response.text()
        return str((await response.json())["choices"][0]["message"]["content"])

    assert await answer({"Q": 100}) == "Q"
    assert await answer([["Q", 100]]) == "Q"
    assert await answer([[ord("Q"), 100.0]]) == "Q"


async def test_an_editor_has_a_gap_filled_as_it_types(running: Service) -> None:
    body = {
        "prompt": "def add(a, b):\n    return ",
        "suffix": "\n\nprint(add(1, 2))\n",
        "max_tokens": 8,
        "temperature": 0.01,
        "stop": ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "\n\n", "/src/"],
        "stream": True,
    }
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{running.url}/v1/completions", json=body) as response,
    ):
        assert response.status == 200
        *events, done = await sse_events(response)
    assert done == "[DONE]"
    choices = [json.loads(event)["choices"][0] for event in events]
    assert len("".join(choice["text"] for choice in choices)) == 8
    assert choices[-1]["finish_reason"] == "length"
