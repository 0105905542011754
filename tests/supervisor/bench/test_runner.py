"""Runs end by themselves, do as much as they should, and not more at once."""

import asyncio

import pytest

from supervisor.bench.client import Target
from supervisor.bench.outcome import Failure, Outcome
from supervisor.bench.runner import Bounds, run
from supervisor.bench.workload import Workload
from tests.supervisor.bench.fake_openai import FakeOpenai, fake_openai

SHORT = Workload(prompt_tokens=4, output_tokens=3)


def prompts(fake: FakeOpenai) -> list[str]:
    return [body["messages"][-1]["content"] for body in fake.seen]


async def test_a_closed_loop_does_so_many_and_warms_up_before() -> None:
    ended: list[Outcome] = []
    async with fake_openai() as (fake, url):
        done = await run(Target(url=url), SHORT, Bounds(streams=3, requests=10), ended.append)
    assert sorted(outcome.conversation for outcome in done.outcomes) == list(range(10))
    assert len(ended) == 10
    assert all(outcome.failure is None for outcome in done.outcomes)
    assert len(prompts(fake)) == len(set(prompts(fake))) == 12
    assert fake.most_running <= 3


async def test_streams_run_at_once_and_no_more() -> None:
    async with fake_openai() as (fake, url):
        fake.gate = asyncio.Event()
        bounds = Bounds(streams=4, requests=9, warm_up=0)
        task = asyncio.create_task(run(Target(url=url), SHORT, bounds))
        await fake.wait_for_running(4)
        fake.gate.set()
        await task
    assert fake.most_running == 4


async def test_a_conversation_contains_its_earlier_turns() -> None:
    workload = Workload(prompt_tokens=4, output_tokens=2, turns=3, shared_prefix=5)
    async with fake_openai() as (fake, url):
        done = await run(Target(url=url), workload, Bounds(streams=1, requests=1, warm_up=0))
    assert [outcome.turn for outcome in done.outcomes] == [0, 1, 2]
    said = [message["content"] for message in fake.seen[2]["messages"]]
    answer = ' "content":"0 "content":"1'
    assert [said[2], said[4]] == [answer, answer]
    assert [m["role"] for m in fake.seen[2]["messages"]] == [
        "system", "user", "assistant", "user", "assistant", "user",
    ]  # fmt: skip


async def test_a_conversation_ends_with_its_first_failure() -> None:
    workload = Workload(prompt_tokens=4, output_tokens=2, turns=3)
    async with fake_openai() as (_, url):
        target = Target(url=url, model="refuse")
        done = await run(target, workload, Bounds(streams=1, requests=2, warm_up=0))
    assert [(o.conversation, o.failure) for o in done.outcomes] == [
        (0, Failure.REFUSED), (1, Failure.REFUSED),
    ]  # fmt: skip


async def test_an_open_loop_does_not_wait_for_answers() -> None:
    workload = Workload(prompt_tokens=4, output_tokens=3, rate=10_000.0)
    async with fake_openai() as (fake, url):
        fake.gate = asyncio.Event()
        bounds = Bounds(streams=1, requests=6, warm_up=0)
        task = asyncio.create_task(run(Target(url=url), workload, bounds))
        await fake.wait_for_running(6)
        fake.gate.set()
        assert len((await task).outcomes) == 6


@pytest.mark.parametrize("rate", [None, 500.0])
async def test_the_clock_ends_it(rate: float | None) -> None:
    workload = Workload(prompt_tokens=4, output_tokens=3, rate=rate)
    async with fake_openai() as (_, url):
        done = await run(Target(url=url), workload, Bounds(streams=2, duration_s=0.2, warm_up=0))
    assert done.outcomes
    assert all(outcome.failure is None for outcome in done.outcomes)


async def test_a_server_that_is_silent_does_not_hold_it_up() -> None:
    async with fake_openai() as (_, url):
        bounds = Bounds(streams=2, duration_s=0.05, grace_s=0.05, warm_up=0)
        done = await run(Target(url=url, model="silent"), SHORT, bounds)
    assert {outcome.failure for outcome in done.outcomes} == {Failure.UNFINISHED}


async def test_without_a_bound_it_does_not_begin() -> None:
    with pytest.raises(ValueError, match="duration"):
        await run(Target(url="http://127.0.0.1:1"), SHORT, Bounds())
