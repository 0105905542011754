"""Anthropic's own client against the real model, over real processes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from tests.e2e.repeatable import SAME_PASSES
from tests.service import Service, service

pytestmark = pytest.mark.model

MODEL = "claude-x"
ALONE = {"seed": 7, "cache_prompt": False}
"""Makes a request reproducible to the bit while no other one runs."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("anthropic") / "run"
    environ = SAME_PASSES | {"GPUFC_ALIASES": "claude-*"}
    with service(
        folder, "--model-path", str(model_path), "--n-ctx", "512", environ=environ
    ) as started:
        yield started


@pytest.fixture
def client(running: Service) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=running.url, api_key="none", max_retries=0) as made:
        yield made


def asked(text: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": MODEL, "max_tokens": 12, "messages": messages, **fields}


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_message_answers_and_shows_the_client_s_name(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**asked("What is the capital of France?"))
    assert text_of(message)
    assert message.model == MODEL
    assert message.stop_reason in {"end_turn", "max_tokens"}


def test_a_stream_equals_the_whole_message(client: anthropic.Anthropic) -> None:
    body = asked("Tell me of rivers.", system="Be brief.", extra_body=ALONE)
    whole = client.messages.create(**body)
    with client.messages.stream(**body) as stream:
        pieces = list(stream.text_stream)
        streamed = stream.get_final_message()
    assert len(pieces) > 5
    assert "".join(pieces) == text_of(whole)
    assert streamed.model_dump(exclude={"id"}) == whole.model_dump(exclude={"id"})


def test_tokens_are_counted_as_they_are_used_and_cached(client: anthropic.Anthropic) -> None:
    tools = [{"name": "read_file", "description": "Reads", "input_schema": {"type": "object"}}]
    body = asked("List the files, please. " * 10, system="You are an agent.", tools=tools)
    counted = client.messages.count_tokens(
        **{key: value for key, value in body.items() if key != "max_tokens"}
    )
    first, second = (client.messages.create(**body).usage for _ in range(2))
    assert first.input_tokens + (first.cache_read_input_tokens or 0) == counted.input_tokens
    assert second.input_tokens + (second.cache_read_input_tokens or 0) == counted.input_tokens
    assert (second.cache_read_input_tokens or 0) >= 0.9 * counted.input_tokens


def test_a_stop_sequence_ends_a_message_and_is_told(client: anthropic.Anthropic) -> None:
    body = asked("Continue: 1, 2, 3, 4, 5", stop_sequences=[" 7"], extra_body={"temperature": 0})
    body["messages"].append({"role": "assistant", "content": "1, 2, 3, 4, 5,"})
    message = client.messages.create(**body)
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", " 7")
    assert text_of(message) == " 6,"


def test_a_schema_is_kept(client: anthropic.Anthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    body = asked("A city in Norway, as JSON.", max_tokens=64)
    body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    text = text_of(client.messages.create(**body))
    assert text.replace(" ", "").replace("\n", "") in {'{"city":"Oslo"}', '{"city":"Rome"}'}


@pytest.mark.parametrize(
    "choice",
    [
        pytest.param({"type": "any"}, marks=pytest.mark.slow),
        {"type": "tool", "name": "get_weather"},
    ],
)
def test_a_choice_of_tools_is_kept(client: anthropic.Anthropic, choice: dict[str, str]) -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    tools = [{"name": "get_weather", "description": "Weather of a city", "input_schema": schema}]
    chosen = {**choice, "disable_parallel_tool_use": True}
    body = asked("Weather in Oslo?", tools=tools, tool_choice=chosen, extra_body=ALONE)
    body["max_tokens"] = 128
    whole = client.messages.create(**body)
    with client.messages.stream(**body) as stream:
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        assert message.stop_reason == "tool_use"
        (call,) = message.content
        assert call.type == "tool_use"
        assert (call.name, call.input["city"] in {"Oslo", "Rome"}) == ("get_weather", True)
    answer = {"role": "assistant", "content": [block.to_dict() for block in whole.content]}
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Rain"}
    body["messages"] += [answer, {"role": "user", "content": [result]}]
    body |= {"tool_choice": {"type": "none"}, "max_tokens": 12}
    assert client.messages.create(**body).stop_reason in {"end_turn", "max_tokens"}
