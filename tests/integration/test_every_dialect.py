"""A stream of each client API says the whole answer, also when its worker dies in the middle, and
ends once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from tests.service import Service

N_TOKENS = 48
SEEDED = {"seed": 11, "temperature": 0.9, "cache_prompt": False}


class Api(NamedTuple):
    """How one route is asked, and where its texts stand."""

    path: str
    body: Callable[[str], dict[str, Any]]
    whole: Callable[[Any], str]
    delta: Callable[[Any], str]
    is_end: Callable[[Any], bool]


def chat(prompt: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}]}


def delta_of(chunk: Any) -> str:
    return str(chunk["choices"][0]["delta"].get("content") or "")


def has_reason(chunk: Any) -> bool:
    return chunk["choices"][0]["finish_reason"] is not None


def in_options(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {"options": SEEDED | {"num_predict": N_TOKENS}}


APIS = {
    "chat completions": Api(
        "/v1/chat/completions",
        lambda prompt: chat(prompt) | SEEDED | {"max_tokens": N_TOKENS},
        lambda answer: answer["choices"][0]["message"]["content"],
        delta_of,
        has_reason,
    ),
    "completions": Api(
        "/v1/completions",
        lambda prompt: SEEDED | {"prompt": prompt, "max_tokens": N_TOKENS},
        lambda answer: answer["choices"][0]["text"],
        lambda chunk: chunk["choices"][0]["text"],
        has_reason,
    ),
    "responses": Api(
        "/v1/responses",
        lambda prompt: SEEDED | {"input": prompt, "max_output_tokens": N_TOKENS},
        lambda answer: answer["output"][0]["content"][0]["text"],
        lambda event: event["delta"] if event["type"] == "response.output_text.delta" else "",
        lambda event: event["type"] == "response.incomplete",
    ),
    "messages": Api(
        "/v1/messages",
        lambda prompt: chat(prompt) | SEEDED | {"max_tokens": N_TOKENS, "model": "default"},
        lambda answer: answer["content"][0]["text"],
        lambda event: event.get("delta", {}).get("text", ""),
        lambda event: event["type"] == "message_stop",
    ),
    "Ollama's chat": Api(
        "/api/chat",
        lambda prompt: in_options(chat(prompt)),
        lambda answer: answer["message"]["content"],
        lambda line: line["message"]["content"],
        lambda line: line["done"],
    ),
    "Ollama's generate": Api(
        "/api/generate",
        lambda prompt: in_options({"prompt": prompt}),
        lambda answer: answer["response"],
        lambda line: line["response"],
        lambda line: line["done"],
    ),
    "llama-server's completion": Api(
        "/completion",
        lambda prompt: SEEDED | {"prompt": prompt, "n_predict": N_TOKENS},
        lambda answer: answer["content"],
        lambda event: event["content"],
        lambda event: event["stop"],
    ),
}


@pytest.fixture
def running(plain: Service) -> Service:
    return plain


async def ask(running: Service, api: Api, prompt: str, *, stream: bool) -> str:
    body = api.body(prompt) | {"stream": stream}
    async with (
        aiohttp.ClientSession(running.url) as session,
        session.post(api.path, json=body) as response,
    ):
        text = await response.text()
        assert response.status == 200, text
        return text


async def whole_text(running: Service, api: Api, prompt: str) -> str:
    return api.whole(json.loads(await ask(running, api, prompt, stream=False)))


async def streamed_text(running: Service, api: Api, prompt: str) -> str:
    """The joined text of a stream that ended once, with its last document."""
    lines = (await ask(running, api, prompt, stream=True)).split("\n")
    data = [line.removeprefix("data: ") for line in lines]
    read = [json.loads(line) for line in data if line.startswith("{")]
    assert [api.is_end(document) for document in read] == [False] * (len(read) - 1) + [True]
    return "".join(api.delta(document) for document in read)


@pytest.mark.parametrize("name", APIS)
async def test_a_seeded_stream_is_the_whole_answer(running: Service, name: str) -> None:
    text = await whole_text(running, APIS[name], "once")
    assert len(text) >= N_TOKENS // 2
    assert await streamed_text(running, APIS[name], "once") == text
    assert await whole_text(running, APIS[name], "twice") != text


@pytest.mark.parametrize("name", APIS)
async def test_a_stream_whose_worker_dies_is_the_whole_answer_and_ends_once(
    running: Service, name: str, tmp_path: Path
) -> None:
    running.wait_idle()
    once, epoch = tmp_path / "killed", running.worker()["epoch"]
    prompt = f"[[kill@13 once={once}]] goes on"
    streamed = await streamed_text(running, APIS[name], prompt)
    assert once.exists()
    assert running.worker()["epoch"] > epoch
    assert streamed == await whole_text(running, APIS[name], prompt)
