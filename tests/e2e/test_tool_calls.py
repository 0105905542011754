"""Forced calls of the real model through OpenAI's own client, also when the worker is killed."""

import json
import signal
from collections.abc import Iterator, Mapping
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
    environ = {"GPUFC_REPLAY": "exact", "GPUFC_N_THREADS": "1"}
    with service(folder, *arguments, environ=environ) as started:
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


CHOSEN: dict[str, dict[str, list[str]]] = {
    "unicode-args": {"title": ["Grüße aus Zürich"], "body": ["Café ☕ in 東京 — naïve résumé 🚀"]},
    "parallel-calls": {"city": ["Paris", "Tokyo"], "unit": ["c", "f"]},
}
"""Of a scenario's tool, the only arguments that its schema leaves. A small model does not repeat
them from its prompt."""


def demanded(scenario: Scenario) -> Scenario:
    """The scenario with the calls demanded that it expects, or with none. A choice demands one
    call; that no end token comes before so many others demands a second one."""
    choice: Any = "none"
    for name in scenario.expect.tool_names:
        choice = {"type": "function", "function": {"name": name}}
    made = replace(
        scenario,
        tool_choice=choice,
        tools=tuple(narrowed(tool, CHOSEN.get(scenario.id)) for tool in scenario.tools),
        extra_body={"max_tokens": 400, "dry_multiplier": 0.8},
    )
    if scenario.expect.min_calls < 2:
        return made
    body = dict(scenario.extra_body) | {"min_tokens": 30, "max_tokens": 400}
    return replace(made, tool_choice="required", extra_body=body)


def narrowed(tool: Mapping[str, Any], chosen: dict[str, list[str]] | None) -> Mapping[str, Any]:
    """The tool with the chosen arguments, or with strings of a length at which a small model ends
    them."""
    parameters = dict(tool["function"]["parameters"])
    if chosen is None:
        properties = {name: bounded(one) for name, one in parameters["properties"].items()}
    else:
        properties = {name: {"enum": values} for name, values in chosen.items()}
    function = dict(tool["function"]) | {"parameters": parameters | {"properties": properties}}
    return dict(tool) | {"function": function}


def bounded(argument: Mapping[str, Any]) -> Mapping[str, Any]:
    is_text = argument.get("type") == "string" and "enum" not in argument
    return dict(argument) | ({"maxLength": 60} if is_text else {})


@pytest.mark.slow
@pytest.mark.parametrize("given", BUILTIN_SCENARIOS, ids=lambda given: given.id)
def test_an_independent_probe_finds_no_fault_in_forced_calls(
    running: Service, given: Scenario
) -> None:
    """Scenarios of `canitoolcall`. What the model writes into a string is its own."""
    report = probe(
        *(f"{running.url}/v1", ASKED["model"]),
        scenarios=[demanded(given)],
        timeout_s=200,
        concurrency=1,
    )
    assert [outcome.status for outcome in report.outcomes] == ["pass"] * 3, report.render_text()
