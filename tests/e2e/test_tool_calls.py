"""Forced calls of the real model through OpenAI's own client, also when the worker is killed."""

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from canitoolcall.probe import BUILTIN_SCENARIOS, Scenario, probe
from pydantic import BaseModel

from tests.service import Service, service

pytestmark = pytest.mark.model


class Person(BaseModel):
    name: str
    age: int


class Weather(BaseModel):
    city: str
    unit: str | None = None


MODELS: dict[str, type[BaseModel]] = {"Person": Person, "Weather": Weather}
TOOLS: list[Any] = [openai.pydantic_function_tool(Person), openai.pydantic_function_tool(Weather)]
NAMED: Any = {"type": "function", "function": {"name": "Person"}}
ASKED: dict[str, Any] = {
    "model": "SmolLM2-135M-Instruct.Q4_1",
    "messages": [{"role": "user", "content": "Ann is 31. How is the weather in Lima?"}],
    "tools": TOOLS,
    "max_tokens": 160,
    "seed": 7,
    "extra_body": {"cache_prompt": False},
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("tools") / "run"
    arguments = ("--model-path", str(model_path), "--n-ctx", "1024")
    with service(folder, *arguments, environ={"GPUFC_REPLAY": "exact"}) as started:
        yield started


@pytest.fixture
def client(running: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def valid(name: str, arguments: str) -> BaseModel:
    return MODELS[name].model_validate_json(arguments)


@pytest.mark.parametrize("choice", ["required", pytest.param(NAMED, marks=pytest.mark.slow)])
def test_a_demanded_call_comes_with_arguments_of_its_type(
    client: openai.OpenAI, choice: Any
) -> None:
    [answer] = client.chat.completions.create(
        **ASKED, tool_choice=choice, parallel_tool_calls=False
    ).choices
    assert answer.finish_reason == "tool_calls"
    assert answer.message.content is None
    [call] = answer.message.tool_calls or ()
    assert isinstance(call, openai.types.chat.ChatCompletionMessageFunctionToolCall)
    assert valid(call.function.name, call.function.arguments)
    assert choice == "required" or call.function.name == "Person"


def test_the_client_parses_a_demanded_call_into_its_own_type(client: openai.OpenAI) -> None:
    asked = {key: value for key, value in ASKED.items() if key != "max_tokens"}
    answer = client.chat.completions.parse(**asked, tool_choice=NAMED)
    [call] = answer.choices[0].message.tool_calls or ()
    assert isinstance(call.function.parsed_arguments, Person)


def joined(client: openai.OpenAI, running: Service | None = None) -> tuple[str, str]:
    """Name and arguments of a streamed call. With a service its worker is killed in the middle."""
    name = arguments = ""
    stream = client.chat.completions.create(**ASKED, tool_choice=NAMED, stream=True)
    for n_chunks, chunk in enumerate(stream):
        if n_chunks == 0 and running is not None:
            running.kill_worker(signal.SIGKILL)
        for delta in chunk.choices[0].delta.tool_calls or ():
            assert delta.function is not None
            name += delta.function.name or ""
            arguments += delta.function.arguments or ""
        finish = chunk.choices[0].finish_reason
    assert finish == "tool_calls"
    return name, arguments


def test_a_streamed_call_goes_on_unchanged_after_a_kill(
    client: openai.OpenAI, running: Service
) -> None:
    name, arguments = joined(client)
    assert json.loads(arguments)
    assert valid(name, arguments)
    assert joined(client, running) == (name, arguments)


def demanded(scenario: Scenario) -> Scenario:
    """The scenario with the call named that it expects. A penalty on repetitions has the small
    model end its texts, within a bound."""
    [name, *_] = scenario.expect.tool_names
    return replace(
        scenario,
        tool_choice={"type": "function", "function": {"name": name}},
        extra_body={"max_tokens": 400, "dry_multiplier": 0.8},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["single-call", "nested-args", "empty-args", "forced-tool-choice", "reasoning-then-call"],
)
def test_an_independent_probe_finds_no_fault_in_forced_calls(running: Service, name: str) -> None:
    """Scenarios of `canitoolcall`. What the model writes into a string is its own."""
    [given] = [one for one in BUILTIN_SCENARIOS if one.id == name]
    report = probe(
        *(f"{running.url}/v1", ASKED["model"]),
        scenarios=[demanded(given)],
        timeout_s=200,
        concurrency=1,
    )
    assert [outcome.status for outcome in report.outcomes] == ["pass"] * 3, report.render_text()
