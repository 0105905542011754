"""A front whose model says chosen texts, asked as Ollama's clients do."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from gpufc.protocol import Generate, Prepare
from supervisor.dispatch.request import Reading
from supervisor.http.generation import chat
from tests.supervisor.answers.toy import Toy
from tests.supervisor.dispatch import fakes
from tests.supervisor.dispatch.fakes import MODEL, FakeWorker
from tests.supervisor.http.conftest import Answer, Service, running

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def speaking(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator["Speaking"]:
    """A model with a parser of its own, so that answers have reasoning and calls."""
    said: list[str] = []

    def piece(_spec: Generate, position: int) -> str:
        return said[position]

    monkeypatch.setattr(fakes, "piece", piece)
    monkeypatch.setattr(chat, "reading_of", lambda *_, **__: lambda _opening: Reading(Toy))
    async with running() as service:
        yield Speaking(service, service.fleet.start_worker(), said)


class Speaking:
    def __init__(self, service: Service, worker: FakeWorker, said: list[str]) -> None:
        self.service = service
        self.worker = worker
        self._said = said

    def says(self, *pieces: str) -> None:
        self._said[:] = pieces
        self.worker.n_tokens = len(pieces)


async def ask(service: Service, path: str = "/api/chat", **fields: Any) -> Answer:
    body: dict[str, Any] = {"model": MODEL}
    body |= {"messages": HI} if path == "/api/chat" else {"prompt": "hello"}
    return await service.post(path, body | fields)


def lines(answer: Answer) -> list[dict[str, Any]]:
    """The objects of a stream. No line is blank, each ends, and only the last one is done."""
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert answer.body.endswith(b"\n")
    found: list[dict[str, Any]] = [
        msgspec.json.decode(line) for line in answer.body[:-1].split(b"\n")
    ]
    assert [line["done"] for line in found] == [False] * (len(found) - 1) + [True]
    return found


def prepared(worker: FakeWorker) -> Prepare:
    """The latest prompt that the worker was given."""
    return [message for message in worker.sent if isinstance(message, Prepare)][-1]


def generated(worker: FakeWorker) -> Generate:
    return [message for message in worker.sent if isinstance(message, Generate)][-1]
