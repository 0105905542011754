"""The context of handlers: the front's parts on the application, facts on the request."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from msgspec import Struct, structs

from gpufc.changes import Change
from gpufc.config import Config
from gpufc.ids import RequestId
from supervisor.access.ring import KeyRing
from supervisor.devices.history import Recent
from supervisor.devices.snapshot import Snapshot
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.dispatch.durable import DurableKey, DurableRequest
from supervisor.dispatch.durable_ask import DurableAsk
from supervisor.dispatch.durable_store import DurableRequests
from supervisor.dispatch.port import ServedFleet
from supervisor.dispatch.request import GenerationRequest, Principal
from supervisor.dispatch.stream import ResponseStream
from supervisor.fleet.model_state import ModelState
from supervisor.fleet.operation import Operation
from supervisor.fleet.port import HostStatus, ModelChange
from supervisor.http.edge.allowed_models import AllowedModels
from supervisor.tracing.spans import Answer


class Devices(Protocol):
    """The watch over the machine (`supervisor.devices.monitor.DeviceMonitor`)."""

    def snapshot(self) -> Snapshot:
        """The latest readings. Never blocks."""
        ...

    def history(self, since: float = 0.0) -> Recent:
        """The readings of the last hour, or of its part after `since` in unix seconds."""
        ...


class Tracer(Protocol):
    """Where traces go (`supervisor.tracing.export.Tracer`)."""

    def answered(self, answer: Answer, stream: ResponseStream | None) -> None:
        """Send a request's trace. Never blocks."""
        ...


class Reloading(Protocol):
    """A reload that has begun (`supervisor.operations.Reloading`)."""

    operation: Operation
    changes: tuple[Change, ...]


class Operator(Protocol):
    """The operations behind `/admin` (`supervisor.operations.Operations`)."""

    def restart(self, worker: str | None, now: bool = False) -> Operation:
        """Begin to replace one worker, or all. Raises `NotFound`."""
        ...

    def swap(self, name: str | None, change: ModelChange) -> Operation:
        """Begin to serve another model."""
        ...

    def reload(self, *, is_trial: bool = False) -> Reloading:
        """Begin to read the configuration again and to apply it. A trial applies nothing."""
        ...

    def load(self, model: str) -> Operation:
        """Begin to load a model. Raises `ModelNotFound`."""
        ...

    def unload(self, model: str) -> Operation:
        """Begin to unload a model, which ends its requests first. Raises `ModelNotFound`."""
        ...


class Models(Protocol):
    """The served models as they are now (`supervisor.roster.shown.ShownModels`)."""

    def state(self, model: str) -> ModelState:
        """One of them, by its served name."""
        ...

    def note(self, model: str) -> str:
        """What a client that waits for it is told; empty for one that is there."""
        ...


class Roster(Protocol):
    """What requests may say about the memory (`supervisor.roster.roster.Roster`)."""

    def keep_alive(self, model: str, seconds: float | None, *, may_shorten: bool = True) -> None:
        """Let a model stay for so long after its last request; negative: for ever; None changes
        nothing. Unless it `may_shorten` the time, it stays as long as it would have at least."""
        ...


class Hooks(Protocol):
    """The plugins (`supervisor.plugins.plugins.Plugins`)."""

    def submit(self, request: GenerationRequest, principal: Principal) -> ResponseStream:
        """As `Dispatcher.submit`."""
        ...

    async def identify(self, headers: Mapping[str, str], address: str) -> Principal | None:
        """The principal that a plugin names. Raises `AuthenticationFailed`."""
        ...

    def summary(self) -> Sequence[Struct]:
        """The rows of `/stats`."""
        ...


class Cells(Protocol):
    """The other fronts that durable requests go on in (`supervisor.cells.cells.Cells`)."""

    async def find_or_start(self, ask: DurableAsk) -> DurableRequest | None:
        """The request of that key from another front, or a new one. Raises `RequestError`."""
        ...

    async def forget(self, key: DurableKey, *, is_here: bool) -> bool:
        """Forget the request of that key in all fronts; this one has done so if it `is_here`.
        Whether there was one; raises `RequestError`."""
        ...

    def status(self) -> Struct:
        """The document in `/stats`."""
        ...


def _no_network() -> None:
    """For a front that has joined no network."""


def _any_model(_name: str) -> bool:
    """For a principal without a list of models."""
    return True


class Services(Struct, frozen=True):
    """The front's parts that handlers use. `started_at` is unix time in seconds. `network` gives
    the state of the network client, if there is one. `shows` tells which models the request's
    principal may see, those that are not served any more included. `runtime_dir` has
    logs and crash records, `keys` are the access keys in force. Requests enter by `submit`."""

    config: Config
    fleet: ServedFleet
    dispatcher: Dispatcher
    devices: Devices | None
    durable: DurableRequests
    started_at: float
    operator: Operator | None = None
    network: Callable[[], Struct | None] = _no_network
    shows: Callable[[str], bool] = _any_model
    tracer: Tracer | None = None
    models: Models | None = None
    roster: Roster | None = None
    runtime_dir: Path | None = None
    keys: KeyRing | None = None
    hooks: Hooks | None = None
    hosts: Callable[[], Sequence[HostStatus]] | None = None
    """The machines that may run workers; None without a cluster."""
    cells: Cells | None = None

    def submit(self, request: GenerationRequest, principal: Principal) -> ResponseStream:
        """Accept a request, by `Dispatcher.submit`, behind the plugins if there are any."""
        if self.hooks is None:
            return self.dispatcher.submit(request, principal)
        return self.hooks.submit(request, principal)


SERVICES = web.AppKey("services", Services)
REQUEST_ID = web.RequestKey("request_id", RequestId)
STREAM = web.RequestKey("stream", ResponseStream)
"""The stream of a request that generates, for the access log."""
PRINCIPAL = web.RequestKey("principal", Principal)


def services(request: web.Request) -> Services:
    """The application's parts, with the models that the request's principal may use."""
    front, principal = request.app[SERVICES], request.get(PRINCIPAL)
    if principal is None or not principal.models:
        return front
    allowed = AllowedModels(front.fleet, principal.models)
    return structs.replace(front, fleet=allowed, shows=allowed.allows)


MANY_VALUES = 2_000
"""An answer of more values is built in a thread, so that the loop goes on."""


async def built_response(
    build: Callable[[], object], n_values: int, headers: dict[str, str] | None = None
) -> web.Response:
    """The answer of the document that `build` makes, of about `n_values` values. `build` reads
    nothing that changes."""
    if n_values <= MANY_VALUES:
        return json_response(build(), headers=headers)
    body = await asyncio.to_thread(lambda: msgspec.json.encode(build()))
    return web.Response(body=body, content_type="application/json", headers=headers)


async def listed_response(
    name: str, parts: Callable[[], Iterable[list[Any]]], n_values: int
) -> web.Response:
    """The answer of one list under `name`, about `n_values` long, which `parts` makes in parts. To
    encode a part holds all threads, so it must be short. `parts` reads nothing that changes."""

    def body() -> list[bytes]:
        encoded = []
        for part in filter(None, parts()):
            encoded.append(msgspec.json.encode(part)[1:-1])
            time.sleep(0)  # the loop's thread gets the interpreter at once, not after 5 ms
        first, *others = encoded or [b""]
        return [b'{"%s":[%s' % (name.encode(), first), *(b"," + part for part in others), b"]}"]

    if n_values > MANY_VALUES:
        return web.Response(body=InParts(await asyncio.to_thread(body)))
    return web.Response(body=b"".join(body()), content_type="application/json")


class InParts(Payload):
    """A body that is never in one piece: to join or send tens of megabytes holds the loop."""

    def __init__(self, parts: list[bytes]) -> None:
        super().__init__(parts, content_type="application/json")
        self._size = sum(map(len, parts))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        for part in self._value:
            await writer.write(part)
            await asyncio.sleep(0)


def json_response(
    document: object, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """An answer of any document that msgspec can encode."""
    return web.Response(
        body=msgspec.json.encode(document),
        status=status,
        content_type="application/json",
        headers=headers,
    )
