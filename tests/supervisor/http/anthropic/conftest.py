"""Anthropic's own client at a front over a fake fleet, and its events as its types read them."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import msgspec
import pytest
from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter

from gpufc.protocol import Generate
from supervisor.dispatch.request import Reading
from supervisor.http.generation import chat
from tests.supervisor.answers.toy import Toy
from tests.supervisor.dispatch import fakes
from tests.supervisor.http.conftest import Answer, Service, running

EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
HELLO: Any = [{"role": "user", "content": "hi"}]
TOOLS: Any = [{"name": "f", "input_schema": {"type": "object"}}]

SAID = ["<thi", "nk>let", " me</think>I <call f>", '{"a":', "1}</call><call g></", "call>", " ok<"]
"""Pieces of an answer in the notation of `Toy`: reasoning, text, two calls, text."""


def speaks(monkeypatch: pytest.MonkeyPatch, *said: str) -> None:
    """Let every fake worker say these pieces, and `Toy` read them."""

    def piece(_spec: Generate, position: int) -> str:
        return said[position]

    monkeypatch.setattr(fakes, "piece", piece)
    monkeypatch.setattr(chat, "reading_of", lambda *_, **__: lambda _opening: Reading(Toy))


@pytest.fixture
async def speaking(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """A service with a model that says `SAID`."""
    speaks(monkeypatch, *SAID)
    async with running() as service:
        service.fleet.start_worker().n_tokens = len(SAID)
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with client_of(service) as made:
        yield made


def client_of(service: Service) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=service.url, api_key="none", max_retries=0)


async def ask(service: Service, path: str = "/v1/messages", **fields: Any) -> Answer:
    return await service.post(path, {"max_tokens": 64, "messages": HELLO, **fields})


def frames(body: bytes) -> list[tuple[str, Any]]:
    """The name and data of each event; every one has both, on a line each."""
    found = []
    for frame in body.decode().removesuffix("\n\n").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in frame.split("\n"))
        data = msgspec.json.decode(lines["data"])
        assert data["type"] == lines["event"]
        found.append((lines["event"], data))
    return found


def events(body: bytes) -> list[Any]:
    """The events of a stream as the client's types; pings are left out."""
    return [EVENT.validate_python(data) for name, data in frames(body) if name != "ping"]


def added_up(read: list[Any]) -> list[dict[str, Any]]:
    """The blocks of a stream as a client adds them up, with the rules of their order checked."""
    blocks: list[dict[str, Any]] = []
    is_open = False
    for event in read:
        match event.type:
            case "content_block_start":
                assert (event.index, is_open) == (len(blocks), False)
                block = event.content_block.model_dump(exclude_none=True)
                is_open = True
                empty = {"text": "", "thinking": "", "input": {}}
                assert all(block[key] == empty[key] for key in block.keys() & empty.keys())
                blocks.append(block | {"json": ""} if block["type"] == "tool_use" else block)
            case "content_block_delta":
                assert (event.index, is_open) == (len(blocks) - 1, True)
                fields = event.delta.model_dump(exclude={"type"}, exclude_none=True)
                ((key, gained),) = fields.items()
                key = "json" if key == "partial_json" else key
                blocks[-1][key] += gained
            case "content_block_stop":
                assert (event.index, is_open) == (len(blocks) - 1, True)
                is_open = False
    for block in blocks:
        if block["type"] == "tool_use":
            block["input"] = msgspec.json.decode(block.pop("json") or "{}")
    assert not is_open
    return blocks
