"""Anthropic's client at a service in real processes: workers that die, sessions of an agent."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from tests.integration.fake_service import FAKE
from tests.service import Service, service

N_CTX = 65_536
N_TOKENS = 60
N_TOOLS, N_TURNS = 20, 10
ENDS = ("message_start", "message_delta", "message_stop")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("anthropic") / "run"
    environ = FAKE | {"GPUFC_ALIASES": "claude-*"}
    with service(folder, "--n-ctx", str(N_CTX), environ=environ) as started:
        yield started


@pytest.fixture
async def client(running: Service) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=running.url, api_key="none", max_retries=0
    ) as made:
        yield made


def asked(text: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "claude-x", "max_tokens": N_TOKENS, "messages": messages, **fields}


@pytest.mark.parametrize("fault", ["kill", "segv", "decode_error"])
async def test_a_stream_outlives_its_worker_with_its_events_in_order(
    running: Service, client: anthropic.AsyncAnthropic, fault: str, tmp_path: Path
) -> None:
    running.wait_idle()
    once, epoch = tmp_path / "done", running.worker()["epoch"]
    body = asked(f"[[{fault}@13 once={once}]] go on")
    names = []
    async with client.messages.stream(**body) as stream:
        async for event in stream:
            names.append(event.type)
        streamed = await stream.get_final_message()
    assert once.exists()
    assert running.worker()["epoch"] > epoch
    assert [names.count(name) for name in ENDS] == [1, 1, 1]
    assert (names[0], names[-1]) == ("message_start", "message_stop")
    assert (streamed.stop_reason, streamed.usage.output_tokens) == ("max_tokens", N_TOKENS)
    whole = await client.messages.create(**body)
    assert [block.text for block in streamed.content if block.type == "text"] == [
        block.text for block in whole.content if block.type == "text"
    ]


CALLER = {"type": "direct"}
"""The client called the tool itself."""


async def test_calls_are_the_same_streamed_and_whole(client: anthropic.AsyncAnthropic) -> None:
    call = '<tool_call>{"name": "lookup", "arguments": {"word": "%s"}}</tool_call>'
    text = "Look." + call % "tea" + call % ("long " * 200)
    body = asked(f"[[say:{text}]][[stop@{len(text)}]]", max_tokens=2000)
    body["tools"] = [{"name": "lookup", "input_schema": {"type": "object"}}]
    whole = await client.messages.create(**body)
    async with client.messages.stream(**body) as stream:
        streamed = await stream.get_final_message()
    assert whole.stop_reason == streamed.stop_reason == "tool_use"
    found = [
        [block.model_dump(exclude={"id"}, exclude_none=True) for block in message.content]
        for message in (whole, streamed)
    ]
    assert found[0] == found[1]
    assert found[0] == [
        {"type": "text", "text": "Look.", "citations": []},
        {"type": "tool_use", "name": "lookup", "input": {"word": "tea"}, "caller": CALLER},
        {"type": "tool_use", "name": "lookup", "input": {"word": "long " * 200}, "caller": CALLER},
    ]


async def test_a_stop_sequence_is_told(client: anthropic.AsyncAnthropic) -> None:
    body = asked("[[say:before STOP after]]", stop_sequences=["END", "STOP"])
    whole = await client.messages.create(**body)
    async with client.messages.stream(**body) as stream:
        streamed = await stream.get_final_message()
    for message in (whole, streamed):
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "STOP")
        assert [block.text for block in message.content if block.type == "text"] == ["before "]


async def test_the_end_of_the_context_is_told(client: anthropic.AsyncAnthropic) -> None:
    message = await client.messages.create(**asked("x" * (N_CTX - 60), max_tokens=8000))
    assert message.stop_reason == "model_context_window_exceeded"
    usage = message.usage
    read = usage.cache_read_input_tokens or 0
    assert usage.input_tokens + read + usage.output_tokens == N_CTX


def tool(number: int) -> dict[str, Any]:
    """A tool with the size of an agent's."""
    words = f"Does task {number} of the project. " * 8
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {key: {"type": "string", "description": words} for key in ("path", "text")},
        "required": ["path"],
        "additionalProperties": False,
    }
    return {"name": f"Tool{number}", "description": words, "input_schema": schema}


def system(turn: int) -> list[dict[str, Any]]:
    """Claude Code's: the first block changes with each request."""
    cached = {"type": "ephemeral"}
    return [
        {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2; cch={turn:05x};"},
        {"type": "text", "text": "You are an agent for code.", "cache_control": cached},
        {"type": "text", "text": "A rule of the house. " * 200, "cache_control": cached},
    ]


async def test_an_agent_s_session_is_found_in_the_cache_from_its_second_turn(
    client: anthropic.AsyncAnthropic,
) -> None:
    messages: list[Any] = [{"role": "user", "content": "Fix the bug."}]
    shares = []
    for turn in range(N_TURNS):
        async with client.beta.messages.stream(
            model="claude-x",
            max_tokens=40,
            system=system(turn),  # type: ignore[arg-type]
            messages=messages,
            tools=[tool(number) for number in range(N_TOOLS)],  # type: ignore[misc]
            thinking={"type": "adaptive"},
            metadata={"user_id": json.dumps({"session_id": "s"})},
            betas=["claude-code-20250219", "interleaved-thinking-2025-05-14"],
        ) as stream:
            answer = await stream.get_final_message()
        usage = answer.usage
        read = usage.cache_read_input_tokens or 0
        shares.append(read / (usage.input_tokens + read))
        own_id = f"toolu_{turn}"
        call = {"type": "tool_use", "id": own_id, "name": "Tool1", "input": {"path": f"{turn}.c"}}
        result = {"type": "tool_result", "tool_use_id": own_id, "content": f"line {turn}\n" * 20}
        text = [block.to_dict() for block in answer.content]
        messages += [
            {"role": "assistant", "content": [*text, call]},
            {"role": "user", "content": [result]},
            {"role": "system", "content": [{"type": "text", "text": f"{turn} files are open."}]},
        ]
    assert shares[0] < 0.5
    assert min(shares[1:]) >= 0.95


async def test_a_client_that_leaves_ends_its_request(
    running: Service, client: anthropic.AsyncAnthropic
) -> None:
    running.wait_idle()
    async with client.messages.stream(**asked("long", max_tokens=60_000)) as stream:
        await anext(stream.text_stream)
    await asyncio.to_thread(running.wait_idle)
