"""A client of durable requests, and what it reads."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from supervisor.http.edge.context import SERVICES
from tests.supervisor.dispatch.fakes import FakeWorker
from tests.supervisor.http.conftest import Answer, Service

JSON = {"Content-Type": "application/json"}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
PATHS = ["/v1/completions", "/v1/chat/completions"]


async def ask(
    service: Service,
    *,
    key: str | None = "key",
    after: str | None = None,
    path: str = "/v1/completions",
    headers: dict[str, str] | None = None,
    **fields: Any,
) -> Answer:
    sent = JSON | (headers or {})
    if key is not None:
        sent["Idempotency-Key"] = key
    if after is not None:
        sent["Last-Event-ID"] = after
    return await service.post(path, body(path, **fields), headers=sent)


def body(path: str, **fields: Any) -> dict[str, Any]:
    return (CHAT if "chat" in path else {"prompt": "hello"}) | fields


def frames(text: bytes) -> list[tuple[str | None, str]]:
    """The complete events of a stream, or of its beginning: id and data."""
    found = []
    for frame in text.decode().split("\n\n")[:-1]:
        lines = dict(line.split(": ", 1) for line in frame.split("\n"))
        if "data" in lines:
            found.append((lines.get("id"), lines["data"]))
    return found


def plain(events: list[tuple[str | None, str]]) -> list[tuple[int, Any, Any]]:
    """Index, gain and end of each choice's events."""
    chunks = [msgspec.json.decode(data) for _, data in events if data != "[DONE]"]
    return [
        (c["index"], c.get("text", c.get("delta")), c["finish_reason"])
        for chunk in chunks
        for c in chunk["choices"]
    ]


@contextlib.asynccontextmanager
async def client_that_leaves(
    service: Service, path: str, *, streamed: bool, key: str | None = "key"
) -> AsyncIterator[None]:
    """A client that is there until the end of the context, and then gone at once."""
    sent = msgspec.json.encode(body(path, stream=streamed))
    _, writer = await asyncio.open_connection(*service.address)
    name = f"Idempotency-Key: {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{name}"
    writer.write(f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
    yield
    writer.close()


def n_readers(service: Service) -> int:
    """Clients that read the durable requests which run now."""
    running_now = service.app[SERVICES].durable._running.values()
    return sum(len(request._watchers) for request in running_now)


def let_go(worker: FakeWorker) -> None:
    worker.auto = True
    worker.go()


def joined(events: list[tuple[str | None, str]]) -> str:
    gained = [entry for _, entry, _ in plain(events)]
    return "".join(e if isinstance(e, str) else e.get("content", "") for e in gained)
