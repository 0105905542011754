"""Ollama's own Python client, as its documentation shows it, against the front."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import ollama
import pytest

from tests.supervisor.dispatch.fakes import MODEL, text_of
from tests.supervisor.http.conftest import Service
from tests.supervisor.http.ollama.conftest import HI, Speaking

T = TypeVar("T")


@pytest.fixture
async def client(service: Service) -> AsyncIterator[ollama.AsyncClient]:
    async with ollama.AsyncClient(host=service.url) as made:
        yield made


async def in_thread(service: Service, use: Callable[[ollama.Client], T]) -> T:
    def run() -> T:
        with ollama.Client(host=service.url) as client:
            return use(client)

    return await asyncio.to_thread(run)


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: the first
        b: the second
    """
    return a + b


async def test_a_chat_whole_and_streamed(client: ollama.AsyncClient) -> None:
    whole = await client.chat(MODEL, HI)
    pieces = [part async for part in await client.chat(MODEL, HI, stream=True)]
    assert whole.message.content == text_of("<user>hi")
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    assert (pieces[-1].done, pieces[-1].done_reason) == (True, "stop")
    assert pieces[-1].eval_count == whole.eval_count == 5


async def test_a_generation_whole_and_streamed(client: ollama.AsyncClient) -> None:
    whole = await client.generate(MODEL, "hello", raw=True)
    pieces = [part async for part in await client.generate(MODEL, "hello", raw=True, stream=True)]
    assert whole.response == text_of("hello")
    assert "".join(piece.response or "" for piece in pieces) == whole.response


async def test_the_client_without_async_reads_the_same(service: Service) -> None:
    def use(client: ollama.Client) -> tuple[str | None, str]:
        whole = client.chat(MODEL, HI)
        pieces = client.chat(MODEL, HI, stream=True)
        return whole.message.content, "".join(piece.message.content or "" for piece in pieces)

    assert await in_thread(service, use) == (text_of("<user>hi"),) * 2


async def test_a_python_function_is_a_tool_and_its_call_has_arguments(speaking: Speaking) -> None:
    speaking.says("<think>sum</think><call add>", '{"a": 1, "b": 2}</call>')
    async with ollama.AsyncClient(host=speaking.service.url) as client:
        answer = await client.chat(MODEL, HI, tools=[add], think=True)
        (call,) = answer.message.tool_calls or ()
        assert (answer.message.thinking, call.function.name) == ("sum", "add")
        messages: list[Any] = [
            *HI,
            answer.message,
            {"role": "tool", "tool_name": "add", "content": str(add(**call.function.arguments))},
        ]
        speaking.says("3")
        assert (await client.chat(MODEL, messages)).message.content == "3"


async def test_models_are_listed_and_shown(client: ollama.AsyncClient) -> None:
    (listed,) = (await client.list()).models
    (loaded,) = (await client.ps()).models
    assert listed.model == loaded.model == f"{MODEL}:latest"
    assert listed.modified_at is not None
    assert loaded.context_length == 4096
    shown = await client.show(MODEL)
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "fake"
    assert shown.capabilities == ["completion"]


async def test_a_model_is_pulled_loaded_and_unloaded(client: ollama.AsyncClient) -> None:
    states = [state.status async for state in await client.pull(MODEL, stream=True)]
    assert states[-1] == "success"
    assert (await client.chat(MODEL)).done_reason == "load"
    assert (await client.generate(MODEL, keep_alive=0)).done_reason == "unload"


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (lambda client: client.chat("other", HI), 404),
        (lambda client: client.show("other"), 404),
        (lambda client: client.delete(MODEL), 501),
        (lambda client: client.copy(MODEL, "other"), 501),
        (lambda client: client.create("other", from_=MODEL), 501),
        (lambda client: client.chat(MODEL, HI, options={"temperature": -1}), 400),
    ],
)
async def test_an_error_is_the_client_s_own_with_a_text(
    client: ollama.AsyncClient, call: Callable[[ollama.AsyncClient], Any], status: int
) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        await call(client)
    assert caught.value.status_code == status
    assert caught.value.error
    assert not caught.value.error.startswith("{")
