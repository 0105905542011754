"""The client against a small server: its counts, and its name for each failure."""

import asyncio

import msgspec
import pytest

from supervisor.bench import client
from supervisor.bench.client import Api, Target
from supervisor.bench.outcome import Failure, Outcome
from supervisor.bench.workload import Conversation, Workload
from tests.supervisor.bench.fake_openai import CACHED_TOKENS, PROMPT_TOKENS, fake_openai

WORKLOAD = Workload(output_tokens=5)
ASKED = Conversation(0, "a prefix", ("first", "second"), 42, 5)


async def ask(url: str, api: Api = Api.CHAT, model: str | None = None) -> Outcome:
    target = Target(url=url, api=api, model=model)
    outcome = Outcome(conversation=0, turn=0, asked_tokens=5, began_at=0.0)
    payload = client.body(target, WORKLOAD, ASKED, [])
    async with client.session() as http:
        await client.ask(http, target, payload, outcome, keep=True)
    return outcome


@pytest.mark.parametrize("model", [None, "in pieces", "carriage returns"])
@pytest.mark.parametrize("api", list(Api))
async def test_every_token_is_timed_and_the_server_counts(api: Api, model: str | None) -> None:
    async with fake_openai() as (_, url):
        outcome = await ask(url, api, model)
    assert outcome.failure is None
    assert len(outcome.text_at) == 5
    assert outcome.began_at <= outcome.text_at[0] <= outcome.text_at[-1] <= outcome.ended_at
    assert outcome.text_at == sorted(outcome.text_at)
    assert (outcome.prompt_tokens, outcome.cached_tokens) == (PROMPT_TOKENS, CACHED_TOKENS)
    assert (outcome.output_tokens, outcome.counted_by_server) == (5, True)
    assert outcome.text == "".join(f' "content":"{number}' for number in range(5))


async def test_without_usage_chunks_are_counted() -> None:
    async with fake_openai() as (_, url):
        outcome = await ask(url, model="no usage")
    assert outcome.failure is None
    assert (outcome.output_tokens, outcome.counted_by_server) == (5, False)


@pytest.mark.parametrize(
    ("model", "failure", "says", "n_texts"),
    [
        ("refuse", Failure.REFUSED, "503: too busy", 0),
        ("cut", Failure.CUT, "", 2),
        ("error", Failure.ERROR_EVENT, "lost", 2),
    ],
)
async def test_failures_have_names(model: str, failure: Failure, says: str, n_texts: int) -> None:
    async with fake_openai() as (_, url):
        outcome = await ask(url, model=model)
    assert outcome.failure is failure
    assert says in outcome.detail
    assert len(outcome.text_at) == n_texts


async def test_an_address_without_a_listener_is_a_failed_connection() -> None:
    async with fake_openai() as (_, url):
        pass
    outcome = await ask(url)
    assert outcome.failure is Failure.UNREACHABLE
    assert outcome.detail.startswith("127.0.0.1 port ")
    assert outcome.detail.endswith(": Connection refused")
    assert outcome.ended_at >= outcome.began_at > 0


async def test_silence_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SILENCE_S", 0.05)
    async with fake_openai() as (_, url):
        outcome = await ask(url, model="silent")
    assert outcome.failure is Failure.SILENT


async def test_a_cancelled_request_is_unfinished() -> None:
    outcome = Outcome(conversation=0, turn=0, asked_tokens=5, began_at=0.0)
    async with fake_openai() as (fake, url), client.session() as http:
        target = Target(url=url, model="silent")
        payload = client.body(target, WORKLOAD, ASKED, [])
        task = asyncio.create_task(client.ask(http, target, payload, outcome, keep=False))
        await fake.wait_for_running(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
    assert outcome.failure is Failure.UNFINISHED


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_a_url_may_have_the_version_or_not(url: str) -> None:
    assert Target(url=url).endpoint == "http://h:1/v1/chat/completions"
    assert Target(url=url, api=Api.COMPLETIONS).endpoint == "http://h:1/v1/completions"


def test_a_later_turn_carries_all_before_it() -> None:
    said = [("first", "answer")]
    chat = msgspec.json.decode(client.body(Target(url="x"), WORKLOAD, ASKED, said))
    assert [(m["role"], m["content"]) for m in chat["messages"]] == [
        ("system", "a prefix"), ("user", "first"), ("assistant", "answer"), ("user", "second"),
    ]  # fmt: skip
    plain = client.body(Target(url="x", api=Api.COMPLETIONS, model="m"), WORKLOAD, ASKED, said)
    body = msgspec.json.decode(plain)
    assert body["prompt"] == "a prefix\nfirstanswer\nsecond"
    assert (body["model"], body["seed"], body["max_tokens"]) == ("m", 42, 5)
    assert body["ignore_eos"] is True
