"""A front whose fake model says chosen texts, and Responses as a client reads them."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gpufc.chat import ChatPrompt
from gpufc.protocol import Generate, Prepare
from supervisor.dispatch.request import Reading
from supervisor.http.generation import chat
from tests.supervisor.answers.toy import Toy
from tests.supervisor.dispatch import fakes
from tests.supervisor.dispatch.fakes import generates
from tests.supervisor.http.conftest import Answer, Service, running

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


class Speaker:
    """A front and its one worker. Called with pieces, the model says them, one for each token."""

    def __init__(self, service: Service, patch: pytest.MonkeyPatch) -> None:
        self.service = service
        self.worker = service.fleet.start_worker()
        self._patch = patch

    def __call__(self, *pieces: str) -> Service:
        def piece(_spec: Generate, position: int) -> str:
            return pieces[position]

        self._patch.setattr(fakes, "piece", piece)
        self.worker.n_tokens = len(pieces)
        return self.service

    @property
    def prompt(self) -> ChatPrompt:
        """The latest conversation that the worker was given."""
        (*_, latest) = (one for one in self.worker.sent if isinstance(one, Prepare))
        assert isinstance(latest.prompt, ChatPrompt)
        return latest.prompt

    @property
    def generation(self) -> Generate:
        """The latest sequence that the worker was given."""
        return generates(self.worker.sent)[-1]


@pytest.fixture
async def speaking(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Speaker]:
    """A model whose `<think>…</think>` is reasoning, and whose `<call NAME>…</call>` is a call."""
    monkeypatch.setattr(chat, "reading_of", lambda *_, **__: lambda _opening: Reading(Toy))
    async with running() as service:
        yield Speaker(service, monkeypatch)


async def respond(service: Service, given: Any = "hi", **fields: Any) -> Answer:
    """POST a request; `given` is its input."""
    return await service.post("/v1/responses", {"input": given, **fields})


async def whole(service: Service, given: Any = "hi", **fields: Any) -> Response:
    """A whole answer, held to the SDK's type."""
    answer = await respond(service, given, **fields)
    assert answer.status == 200, answer.body
    return Response.model_validate(answer.json)


async def events_of(service: Service, given: Any = "hi", **fields: Any) -> list[Any]:
    """A streamed answer's events, held to the SDK's types."""
    answer = await respond(service, given, stream=True, **fields)
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    return parsed(answer.body)


def parsed(body: bytes) -> list[Any]:
    """The events of a stream. Each is named by its type; numbers rise by one from 0; one event
    ends the response, and it is the last one."""
    events = list(_events(body))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    ends = {"response.completed", "response.incomplete", "response.failed"}
    assert [event.type in ends for event in events] == [False] * (len(events) - 1) + [True]
    return events


def _events(body: bytes) -> Iterator[Any]:
    for frame in body.decode().removesuffix("\n\n").split("\n\n"):
        lines = [line for line in frame.split("\n") if not line.startswith("id: ")]
        name, data = lines
        document = msgspec.json.decode(data.removeprefix("data: "))
        assert name == f"event: {document['type']}"
        yield EVENT.validate_python(document)
