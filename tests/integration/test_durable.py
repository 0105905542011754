"""Durable requests over real processes: cut anywhere, killed beneath, and yet one unbroken text.

The fake engine's text depends on every token before it, so equality with `fake_text` is the whole
check.
"""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.integration.fake_service import FAKE, fake_text
from tests.service import Gains, Service, service, wait_for

N_TOKENS = 400
N_CUTS = 20


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("durable") / "run"
    with service(folder, environ=FAKE | {"GPUFC_FAKE_SCRIPT": "step_ms=5"}) as started:
        yield started


@pytest.fixture
def running(shared: Service) -> Service:
    """The one service of this module, with nothing to do and a worker ready."""
    shared.wait_idle()
    return shared


class Client:
    """Reads one durable stream as an event source does: whole events, and the last id."""

    def __init__(self, url: str, prompt: str, *, n: int = 1, chat: bool = False) -> None:
        self.url = url + ("/v1/chat/completions" if chat else "/v1/completions")
        asked = {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
        self.body = asked | {"max_tokens": N_TOKENS, "stream": True, "n": n}
        self.body["stream_options"] = {"include_usage": True}
        self.headers = {"Idempotency-Key": prompt}
        self.chunks: list[dict[str, Any]] = []
        self.done = False

    async def read(self, session: aiohttp.ClientSession, n_bytes: int | None) -> None:
        """Attach, take so many bytes (all with None), and leave without a word."""
        kept = b""
        async with session.post(self.url, json=self.body, headers=self.headers) as response:
            assert response.status == 200, await response.text()
            while n_bytes is None or len(kept) < n_bytes:
                part = await response.content.readany()
                if not part:
                    break
                kept += part
            response.close()
        for frame in kept[:n_bytes].decode(errors="ignore").split("\n\n")[:-1]:
            self._event(frame)

    def _event(self, frame: str) -> None:
        if frame.startswith(":"):
            return
        fields = dict(line.split(": ", 1) for line in frame.split("\n"))
        if "id" in fields:
            self.headers["Last-Event-ID"] = fields["id"]
        if fields["data"] == "[DONE]":
            self.done = True
        else:
            self.chunks.append(msgspec.json.decode(fields["data"]))

    def choices(self, index: int) -> list[dict[str, Any]]:
        return [c for chunk in self.chunks for c in chunk["choices"] if c["index"] == index]

    def text(self, index: int = 0) -> str:
        return "".join(c.get("text") or "" for c in self.choices(index))

    def check(self, n: int = 1) -> None:
        """Everything came once: each choice's end, the usage, the last words."""
        assert self.done
        for index in range(n):
            finishes = [c["finish_reason"] for c in self.choices(index)]
            assert finishes[-1] == "length"
            assert not any(finishes[:-1])
        usages = [chunk["usage"] for chunk in self.chunks if chunk["usage"]]
        assert [usage["completion_tokens"] for usage in usages] == [n * N_TOKENS]
        assert len({(chunk["id"], chunk["created"]) for chunk in self.chunks}) == 1


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("killed", [False, True])
async def test_a_stream_cut_at_20_random_bytes_has_no_gap_and_no_repeat(
    running: Service, n: int, killed: bool, tmp_path: Path
) -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    chance = random.Random(seed)
    fault = f"[[kill@{N_TOKENS // 2} once={tmp_path / 'killed'}]]" if killed else ""
    prompt = f"{fault}cut {n}"
    client = Client(running.url, prompt, n=n)
    epoch, gains = running.worker()["epoch"], Gains(running)
    async with aiohttp.ClientSession() as session:
        for _ in range(N_CUTS):
            await client.read(session, chance.randrange(1, 1500))
        await client.read(session, None)
    for index in range(n):
        assert client.text(index) == fake_text(prompt, N_TOKENS)
    client.check(n)
    assert gains.of("requests", "succeeded_total", "cancelled_total") == (1, 0)
    if killed:
        assert running.worker()["epoch"] > epoch
        assert gains.of("requests", "replayed_total") >= (1,)


async def test_a_finished_chat_cut_at_random_bytes_is_whole(running: Service) -> None:
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    chance, gains = random.Random(seed), Gains(running)
    async with aiohttp.ClientSession() as session:
        whole = Client(running.url, "[[emoji]] chat", n=2, chat=True)
        await whole.read(session, None)
        whole.check(2)
        size = sum(len(msgspec.json.encode(chunk)) for chunk in whole.chunks)
        for _ in range(3):
            client = Client(running.url, "[[emoji]] chat", n=2, chat=True)
            for _ in range(N_CUTS):
                await client.read(session, chance.randrange(1, size // 6))
            await client.read(session, None)
            client.check(2)
            for index in (0, 1):
                assert _content(client, index) == _content(whole, index)
                roles = [c for c in client.choices(index) if "role" in c["delta"]]
                assert len(roles) == 1
    assert gains.of("requests", "succeeded_total") == (1,)


def _content(client: Client, index: int) -> str:
    return "".join(c["delta"].get("content") or "" for c in client.choices(index))


@pytest.mark.parametrize("streamed", [True, False])
async def test_without_any_client_and_through_a_kill_it_gets_its_answer(
    running: Service, streamed: bool, tmp_path: Path
) -> None:
    once = tmp_path / "killed"
    prompt, gains = f"[[kill@{N_TOKENS // 2} once={once}]]alone {streamed}", Gains(running)
    body = {"prompt": prompt, "max_tokens": N_TOKENS, "stream": streamed}
    headers = {"Idempotency-Key": prompt}
    url = f"{running.url}/v1/completions"
    async with aiohttp.ClientSession() as session:
        task = asyncio.create_task(session.post(url, json=body, headers=headers))
        await asyncio.to_thread(
            wait_for, lambda: gains.of("tokens", "generated_total") > (20,), why="it runs"
        )
        task.cancel()
        for left in await asyncio.gather(task, return_exceptions=True):
            if isinstance(left, aiohttp.ClientResponse):
                left.close()
        await asyncio.to_thread(
            wait_for,
            lambda: gains.of("requests", "succeeded_total") == (1,),
            why="it ends by itself",
        )
        answers = []
        for _ in range(2):
            async with session.post(url, json=body, headers=headers) as response:
                answers.append(await response.read())
    assert once.exists()
    assert answers[0] == answers[1]
    if streamed:
        client = Client(running.url, prompt)
        for frame in answers[0].decode().split("\n\n")[:-1]:
            client._event(frame)
        assert client.text() == fake_text(prompt, N_TOKENS)
    else:
        (choice,) = msgspec.json.decode(answers[0])["choices"]
        assert choice["text"] == fake_text(prompt, N_TOKENS)
    counters = ("succeeded_total", "cancelled_total", "replayed_total")
    assert gains.of("requests", *counters) == (1, 0, 1)
