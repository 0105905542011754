"""The whole HTTP front over a fake fleet, on a real socket."""

import asyncio
import contextlib
import io
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from gpufc.config import AdmissionConfig, Config, LimitsConfig
from supervisor.cells.cells import Cells
from supervisor.cells.port import Store
from supervisor.devices.monitor import DeviceMonitor
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.dispatch.durable_store import DurableRequests
from supervisor.http.edge.context import Hooks, Services
from supervisor.http.edge.middleware import OPEN_ACCESS, Authenticator
from supervisor.http.edge.server import FrontRunner, bind, urls
from supervisor.http.routes import create_web_app
from tests.supervisor.dispatch.fakes import FakeFleet


class Service:
    """A front that listens. `fleet.start_worker()` makes it ready."""

    def __init__(
        self,
        config: Config,
        devices: DeviceMonitor | None = None,
        authenticator: Authenticator = OPEN_ACCESS,
        hooks: Callable[[Dispatcher], Hooks] | None = None,
        store: Store | None = None,
    ) -> None:
        """With a `store`, it is one of several fronts (`supervisor/cells`)."""
        self.config = config
        self.fleet = FakeFleet()
        self.dispatcher = Dispatcher(self.fleet, config.admission)
        self.fleet.dispatcher = self.dispatcher
        loop = asyncio.get_running_loop()
        self.durable = DurableRequests(
            config.limits, clock=time.monotonic, call_later=loop.call_later
        )
        self.cells = None
        if store is not None:
            self.cells = Cells(
                *(config.cells, config.limits, store, self.dispatcher, self.fleet, self.durable)
            )
        self.app = create_web_app(
            Services(
                config=config,
                fleet=self.fleet,
                dispatcher=self.dispatcher,
                devices=devices,
                durable=self.durable,
                started_at=time.time(),
                hooks=hooks(self.dispatcher) if hooks else None,
                cells=self.cells,
            ),
            authenticator,
        )
        self.runner = FrontRunner(self.app, config.limits)
        self.url = ""
        self.http: aiohttp.ClientSession

    async def start(self) -> None:
        (sock,) = bind("127.0.0.1", 0)
        await self.runner.setup()
        await web.SockSite(self.runner, sock).start()
        (self.url,) = urls([sock])
        self.address = sock.getsockname()[:2]
        self.http = aiohttp.ClientSession(
            self.url, connector=aiohttp.TCPConnector(limit=0), auto_decompress=False
        )

    async def stop(self) -> None:
        await self.http.close()
        await self.runner.cleanup()

    async def post(self, path: str, body: Any = None, **options: Any) -> "Answer":
        """POST something as JSON, or raw `data=` with `headers=`."""
        if body is not None:
            options["data"] = io.BytesIO(msgspec.json.encode(body))
        elif isinstance(options["data"], bytes):
            options["data"] = io.BytesIO(options["data"])
        options.setdefault("headers", {"Content-Type": "application/json"})
        async with self.http.post(path, **options) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str) -> "Answer":
        async with self.http.get(path) as response:
            return Answer(response.status, response.headers, await response.read())

    async def complete(self, **fields: Any) -> "Answer":
        return await self.post("/v1/completions", {"prompt": "hello", **fields})

    async def chat(self, **fields: Any) -> "Answer":
        messages = [{"role": "user", "content": "hi"}]
        return await self.post("/v1/chat/completions", {"messages": messages, **fields})


QUIET = LimitsConfig(first_byte_s=3600.0, keepalive_comment_s=3600.0)
"""A stream carries the events that its test makes, however long the test's process stands still."""


class Answer:
    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert self.headers["X-Request-Id"]
        return error

    @property
    def events(self) -> list[Any]:
        """The data of all events; `[DONE]` must be the last and is left out."""
        frames = self.body.decode().split("\n\n")
        data = [frame[6:] for frame in frames if frame.startswith("data: ")]
        assert data[-1] == "[DONE]"
        assert "[DONE]" not in data[:-1]
        return [msgspec.json.decode(item) for item in data[:-1]]


@contextlib.asynccontextmanager
async def running(
    limits: LimitsConfig = QUIET, *, slots: int = 4, queue: int | None = None
) -> AsyncIterator[Service]:
    admission = AdmissionConfig(max_concurrent_requests=slots, max_queue=queue)
    service = Service(Config(limits=limits, admission=admission))
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """With a worker that answers."""
    async with running() as made:
        made.fleet.start_worker()
        yield made
