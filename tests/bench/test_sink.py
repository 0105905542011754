"""Clients that only read: every answer is complete, timed and as requested."""

import asyncio
from typing import Any

import pytest

from gpufc.errors import StartError
from tests.bench import sink
from tests.supervisor.bench.fake_openai import fake_openai


async def ask(url: str, **options: Any) -> list[sink.Answer]:
    return await asyncio.to_thread(lambda: sink.ask(url, **options))


async def test_each_client_sends_its_requests_one_after_another() -> None:
    async with fake_openai() as (fake, url):
        answers = await ask(url, clients=3, requests=4, tokens=5)
    assert len(answers) == 12
    assert fake.most_running <= 3
    assert len({body["prompt"] for body in fake.seen}) == 12
    for answer in answers:
        assert (answer.status, answer.n_tokens, len(answer.text_at)) == (200, 5, 5)
        assert answer.began_at <= answer.text_at[0] <= answer.text_at[-1] <= answer.ended_at


async def test_refusals_are_answers_when_they_are_expected() -> None:
    async with fake_openai() as (fake, url):
        fake.fault = "refuse"
        answers = await ask(url, clients=1, requests=3, tokens=1, status=503)
        with pytest.raises(StartError, match="answered 503"):
            await ask(url, clients=1, tokens=1)
    assert [answer.status for answer in answers] == [503] * 3


@pytest.mark.parametrize("fault", ["cut", "no usage"])
async def test_an_incomplete_answer_is_an_error(fault: str) -> None:
    async with fake_openai() as (fake, url):
        fake.fault = fault
        with pytest.raises(StartError, match="200, 0 tokens"):
            await ask(url, clients=1, tokens=5)


async def test_occupying_requests_are_there_until_the_end() -> None:
    async with fake_openai() as (fake, url):
        fake.gate = asyncio.Event()
        with sink.occupying(url, 4, tokens=5):
            await fake.wait_for_running(4)
        fake.gate.set()
        async with asyncio.timeout(30):
            while fake.running:  # noqa: ASYNC110  (no event to wait for)
                await asyncio.sleep(0)
