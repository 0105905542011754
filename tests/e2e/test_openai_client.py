"""OpenAI's own client against the real model, over real processes."""

import asyncio
import http.client
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import openai
import pytest

from tests.e2e.repeatable import COUNTING, SAME_PASSES, require_same
from tests.service import Service, service, wait_for

pytestmark = pytest.mark.model

N_CTX = 256


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("e2e") / "run"
    arguments = ("--model-path", str(model_path), "--n-ctx", str(N_CTX))
    with service(folder, *arguments, environ=SAME_PASSES) as started:
        yield started


@pytest.fixture
def client(running: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def model_name(client: openai.OpenAI) -> str:
    return client.models.list().data[0].id


def test_models_are_listed_and_found_by_name(client: openai.OpenAI) -> None:
    assert model_name(client) == "SmolLM2-135M-Instruct.Q4_1"
    assert client.models.retrieve(model_name(client)).object == "model"


def test_a_completion_has_text_and_usage(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=model_name(client), prompt="The capital of France is", max_tokens=8, temperature=0
    )
    assert "Paris" in answer.choices[0].text
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8


def test_several_prompts_and_choices_come_in_order(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=model_name(client),
        prompt=["The capital of France is", "The capital of Italy is"],
        n=2,
        max_tokens=6,
        temperature=0,
    )
    texts = [choice.text for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert all("Paris" in text for text in texts[:2])
    assert all("Rome" in text for text in texts[2:])


def test_a_chat_answers_in_its_role(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=model_name(client),
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        max_tokens=32,
    )
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in {"stop", "length"}


def test_a_streamed_chat_brings_usage_at_the_end(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=model_name(client),
            messages=[{"role": "user", "content": "Count to five."}],
            max_tokens=20,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert 0 < chunks[-1].usage.completion_tokens <= 20
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[-2].choices[0].finish_reason in {"stop", "length"}


def test_a_stop_string_ends_and_is_not_sent(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=model_name(client), prompt="1, 2, 3, 4,", max_tokens=30, temperature=0, stop=[" 7"]
    )
    assert answer.choices[0].finish_reason == "stop"
    assert " 7" not in answer.choices[0].text


def test_the_same_seed_alone_without_cache_gives_the_same_text(client: openai.OpenAI) -> None:
    def once() -> str:
        answer = client.completions.create(
            model=model_name(client),
            prompt="Once upon a time",
            max_tokens=24,
            seed=42,
            extra_body={"cache_prompt": False},
        )
        return answer.choices[0].text

    assert once() == once()


def test_log_probabilities_of_chunks_joined_are_those_of_the_whole(client: openai.OpenAI) -> None:
    asked: Any = {
        "model": model_name(client),
        "messages": [{"role": "user", "content": "Name a colour, then write 🙂."}],
        "temperature": 0,
        "max_tokens": 24,
        "logprobs": True,
        "top_logprobs": 3,
        "extra_body": {"cache_prompt": False},
    }
    (whole,) = client.chat.completions.create(**asked).choices
    assert whole.logprobs is not None
    content = whole.logprobs.content or []
    assert b"".join(bytes(one.bytes or ()) for one in content).decode() == whole.message.content
    assert all(one.token == one.top_logprobs[0].token for one in content)
    assert all(len(one.top_logprobs) == 3 and one.logprob <= 0.0 for one in content)
    joined = [
        entry
        for chunk in client.chat.completions.create(**asked, stream=True)
        for choice in chunk.choices
        if choice.logprobs is not None
        for entry in choice.logprobs.content or []
    ]
    assert [one.token for one in joined] == [one.token for one in content]
    assert [one.logprob for one in joined] == pytest.approx([one.logprob for one in content])


def test_a_prompt_is_scored_as_evaluations_ask_for_it(client: openai.OpenAI) -> None:
    """The way of lm-eval: token ids, echo, one token too many, and the sum over a continuation."""
    scores = {}
    for city in (" Paris", " Rome"):
        answer = client.completions.create(
            model=model_name(client),
            prompt="The capital of France is" + city,
            max_tokens=1,
            temperature=0,
            logprobs=1,
            echo=True,
        )
        found = answer.choices[0].logprobs
        assert found is not None
        logprobs, tokens = found.token_logprobs or [], found.tokens or []
        assert "".join(tokens) == answer.choices[0].text
        assert tokens[-2] == city
        assert logprobs[0] is None
        assert answer.usage is not None
        assert len(tokens) == answer.usage.prompt_tokens + 1
        scores[city] = logprobs[-2]
    assert scores[" Paris"] > scores[" Rome"]


def test_the_best_of_several_is_one_answer(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=model_name(client), prompt="Once", max_tokens=6, best_of=3, seed=1, logprobs=0
    )
    assert [choice.index for choice in answer.choices] == [0]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 18


def test_a_suffix_needs_a_model_that_can_fill_a_gap(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="fill-in-the-middle") as caught:
        client.completions.create(model=model_name(client), prompt="a", suffix="b")
    assert caught.value.param == "suffix"


@pytest.mark.slow
def test_log_probabilities_of_a_killed_stream_are_those_of_the_whole(
    running: Service, client: openai.OpenAI
) -> None:
    asked: Any = {
        "model": model_name(client),
        "prompt": COUNTING,
        "temperature": 0,
        "max_tokens": 60,
        "logprobs": 2,
    }
    whole = client.completions.create(**asked).choices[0].logprobs
    for kill_at in (1, 7, 20):
        tokens: list[str] = []
        logprobs: list[float | None] = []
        for chunk in client.completions.create(**asked, stream=True):
            found = chunk.choices[0].logprobs
            if found is not None:
                tokens += found.tokens or []
                logprobs += found.token_logprobs or []
            if len(tokens) == kill_at:
                running.kill_worker()
        require_same(tokens, whole, least=60)
        assert logprobs == pytest.approx(whole.token_logprobs, abs=0.25)


def test_a_prompt_over_the_context_is_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=model_name(client), prompt="word " * 2000, max_tokens=1)
    assert caught.value.code == "context_length_exceeded"


def test_max_tokens_beyond_the_room_are_cut_to_it(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=model_name(client),
        prompt=" word" * (N_CTX - 22),
        max_tokens=N_CTX,
        extra_body={"ignore_eos": True},
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.total_tokens == N_CTX


def test_a_wrong_value_names_its_field(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=model_name(client), prompt="x", temperature=-1)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "temperature")


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="gpt-9", prompt="x")
    assert caught.value.code == "model_not_found"


async def test_sixteen_streams_at_once_keep_their_tokens_apart(running: Service) -> None:
    """Each stream is biased to one token of its own: any other one came from elsewhere."""
    async with aiohttp.ClientSession() as session:

        async def post(route: str, body: dict[str, object]) -> dict[str, object]:
            async with session.post(f"{running.url}{route}", json=body) as response:
                assert response.status == 200, await response.text()
                return dict(await response.json())

        async def canary(word: str) -> str:
            found = await post("/tokenize", {"content": word})
            tokens = found["tokens"]
            assert isinstance(tokens, list)
            body = {
                "prompt": f"Say {word}.",
                "max_tokens": 12,
                "temperature": 0,
                "logit_bias": {str(tokens[0]): 100},
                "stream": True,
            }
            text = ""
            async with session.post(f"{running.url}/v1/completions", json=body) as response:
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        text += json.loads(line[6:])["choices"][0]["text"]
            return text

        names = ["red", "blue", "green", "dog", "cat", "sun", "moon", "tree"] * 2
        words = [f" {name}" for name in names]
        texts = await asyncio.gather(*(canary(word) for word in words))
    assert texts == [word * 12 for word in words]


def test_a_service_that_cannot_serve_is_a_typed_error_and_comes_back(
    running: Service, client: openai.OpenAI
) -> None:
    epoch = running.kill_worker(signal.SIGKILL)
    row = running.wait_epoch_after(epoch)
    assert row["restarts"] >= 1
    answer = client.completions.create(model=model_name(client), prompt="Hello", max_tokens=2)
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 2


def test_a_full_queue_is_a_typed_503(running: Service, client: openai.OpenAI) -> None:
    os.kill(running.worker()["pid"], signal.SIGSTOP)
    try:
        pending = [_background(running.url) for _ in range(90)]
        wait_for(
            lambda: (
                running.status()["requests"]["waiting"] + running.status()["requests"]["running"]
                >= 90
            ),
            why="the queue is full",
        )
        with pytest.raises(openai.InternalServerError) as caught:
            client.completions.create(model=model_name(client), prompt="x", max_tokens=1)
        assert caught.value.status_code == 503
        assert int(caught.value.response.headers["retry-after"]) >= 1
    finally:
        os.kill(running.worker()["pid"], signal.SIGCONT)
        for connection in pending:
            connection.close()
    wait_for(lambda: running.status()["requests"]["waiting"] == 0, why="all clients have left")


def _background(url: str) -> http.client.HTTPConnection:
    """A request whose answer is not read."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    body = json.dumps({"prompt": "x", "max_tokens": 1})
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    return connection
