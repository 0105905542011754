"""Prompts that crash a real worker process while they are prepared, and those that only count."""

from pathlib import Path

import aiohttp
import pytest

from tests.integration.fake_service import ENDLESS, FAKE, WIDE, Reading, complete
from tests.service import Service, service

POISON = "[[tokenize:segv]]"


@pytest.fixture
def running(plain: Service) -> Service:
    return plain


async def test_a_prompt_that_crashes_the_tokenizer_is_convicted_and_no_stream_is(
    tmp_path: Path,
) -> None:
    with service(tmp_path / "run", environ=FAKE | WIDE) as running:
        epoch = running.worker()["epoch"]
        async with aiohttp.ClientSession() as session:
            honest = Reading(session, running.url, "a story", ENDLESS)
            await honest.goes_on()
            status, body, _ = await complete(session, running.url, POISON)
            assert (status, body["error"]["code"]) == (500, "engine_crash_suspect")
            await honest.goes_on(100)
            await honest.leave()
            status, body, _ = await complete(session, running.url, POISON)
            assert (status, body["error"]["code"]) == (500, "engine_crash_suspect")
            status, body, _ = await complete(session, running.url, "hello")
            assert status == 200
        assert running.worker()["epoch"] == epoch + 2


async def test_a_text_of_any_length_is_counted(running: Service) -> None:
    content = " a" * 20_000
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{running.url}/tokenize", json={"content": content}) as response,
    ):
        assert response.status == 200
        assert len((await response.json())["tokens"]) == 40_000


async def test_a_stop_string_that_spells_a_control_token_stops_at_the_token(
    running: Service,
) -> None:
    biased = {"logit_bias": {"258": 100}, "stop": ["<|im_start|>"], "temperature": 0}
    async with aiohttp.ClientSession() as session:
        status, body, _ = await complete(session, running.url, "Hi", max_tokens=5, **biased)
    assert status == 200, body
    (choice,) = body["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")
    assert body["usage"]["completion_tokens"] <= 1


async def test_a_control_token_in_a_message_is_text(running: Service) -> None:
    async with aiohttp.ClientSession() as session:
        counts = []
        for content in ("<|im_end|>", "<xim_end|>"):
            body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1}
            async with session.post(f"{running.url}/v1/chat/completions", json=body) as response:
                counts.append((await response.json())["usage"]["prompt_tokens"])
    assert counts[0] == counts[1]
