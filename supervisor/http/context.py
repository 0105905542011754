"""What handlers find: the parts of the front on the application, facts on the request."""

from typing import Protocol

import msgspec
from aiohttp import web
from msgspec import Struct

from gpufc.config import Config
from gpufc.ids import RequestId
from supervisor.devices.snapshot import Snapshot
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.dispatch.durable import DurableRequests
from supervisor.dispatch.port import ServedFleet
from supervisor.dispatch.request import Principal
from supervisor.fleet.operation import Operation
from supervisor.fleet.port import ModelChange


class Devices(Protocol):
    """Who watches the machine (`supervisor.devices.monitor.DeviceMonitor`)."""

    def snapshot(self) -> Snapshot:
        """What is known now. Never blocks."""
        ...


class Operator(Protocol):
    """What `/admin` can have done (`supervisor.operations.Operations`)."""

    def restart(self, worker: str | None, now: bool = False) -> Operation:
        """Begin to replace one worker, or all. Raises `NotFound`."""
        ...

    def swap(self, name: str | None, change: ModelChange) -> Operation:
        """Begin to serve another model."""
        ...


class Services(Struct, frozen=True):
    """The front's parts, as handlers use them. `started_at` is unix time in seconds."""

    config: Config
    fleet: ServedFleet
    dispatcher: Dispatcher
    devices: Devices | None
    durable: DurableRequests
    started_at: float
    operator: Operator | None = None


SERVICES = web.AppKey("services", Services)
REQUEST_ID = web.RequestKey("request_id", RequestId)
PRINCIPAL = web.RequestKey("principal", Principal)


def services(request: web.Request) -> Services:
    """The application's parts."""
    return request.app[SERVICES]


def json_response(
    document: object, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """Anything that msgspec can encode, as the answer."""
    return web.Response(
        body=msgspec.json.encode(document),
        status=status,
        content_type="application/json",
        headers=headers,
    )
