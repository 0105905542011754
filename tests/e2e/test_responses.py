"""OpenAI's Responses by OpenAI's own client, against the real model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.e2e.repeatable import SAME_PASSES
from tests.service import Service, service

pytestmark = pytest.mark.model

ASKED: dict[str, Any] = {
    "model": "default",
    "input": "Hello",
    "temperature": 0,
    "extra_body": {"stop": ["?"]},
}
SHORT = ASKED | {"max_output_tokens": 8}


class Pet(BaseModel):
    name: str
    legs: int


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("responses") / "run"
    options = ("--model-path", str(model_path), "--n-ctx", "1024")
    with service(folder, *options, environ=SAME_PASSES) as started:
        yield started


@pytest.fixture
def client(running: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_a_streamed_answer_is_the_whole_one_and_a_chat_s(client: openai.OpenAI) -> None:
    client.responses.create(**SHORT)  # all that follow find the prompt in the cache
    whole = client.responses.create(**ASKED)
    with client.responses.stream(**ASKED) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    chat = client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": "Hello"}],
        temperature=0,
        stop=["?"],
    )
    assert len(pieces) > 5
    assert "".join(pieces) == final.output_text == whole.output_text
    assert whole.output_text == chat.choices[0].message.content
    assert final.usage is not None
    assert chat.usage is not None
    assert final.usage.output_tokens == chat.usage.completion_tokens


def test_an_answer_is_parsed_into_a_type(client: openai.OpenAI) -> None:
    asked = {"model": "default", "input": "A cat named Tom.", "temperature": 0}
    parsed = client.responses.parse(text_format=Pet, **asked).output_parsed
    assert parsed is not None
    assert parsed.name
    with client.responses.stream(text_format=Pet, **asked) as stream:
        assert stream.get_final_response().output_parsed == parsed


TOOLS: list[Any] = [
    {
        "type": "function",
        "name": "lamp",
        "description": "Switches the lamp",
        "parameters": {
            "type": "object",
            "properties": {"on": {"type": "boolean"}},
            "required": ["on"],
            "additionalProperties": False,
        },
        "strict": True,
    },
    {
        "type": "custom",
        "name": "colour",
        "description": "Sets the lamp's colour",
        "format": {"type": "grammar", "syntax": "regex", "definition": "red|green"},
    },
]


def test_a_call_that_is_required_comes(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "default",
        "input": "Switch the lamp on.",
        "tools": TOOLS,
        "tool_choice": {"type": "function", "name": "lamp"},
        "temperature": 0,
    }
    (call,) = client.responses.create(**asked).output
    assert call.type == "function_call"
    assert call.name == "lamp"
    assert set(json.loads(call.arguments)) == {"on"}
    with client.responses.stream(**asked) as stream:
        (streamed,) = stream.get_final_response().output
    assert streamed.type == "function_call"
    assert streamed.arguments == call.arguments
    custom = asked | {"tool_choice": {"type": "custom", "name": "colour"}}
    (call,) = client.responses.create(**custom).output
    assert call.type == "custom_tool_call"
    assert call.input in ("red", "green")


def test_a_conversation_goes_on_from_its_response(client: openai.OpenAI) -> None:
    first = client.responses.create(**SHORT)
    asked = SHORT | {"input": "Thank you", "previous_response_id": first.id}
    second = client.responses.create(**asked)
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens_details.cached_tokens >= first.usage.input_tokens
    listed = client.responses.input_items.list(second.id, order="asc").data
    assert [getattr(item, "role", None) for item in listed] == ["user", "assistant", "user"]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(**asked)
    assert raised.value.code == "previous_response_not_found"
