"""`GET /stats`: every figure of the front as one document (`API.md` has its shape)."""

import time
from typing import Any

import msgspec
from aiohttp import web

import gpufc
from supervisor.devices.snapshot import Host
from supervisor.fleet.port import WorkerStatus
from supervisor.http.context import Services, json_response, services


async def get_stats(request: web.Request) -> web.Response:
    """The document."""
    return json_response(document(services(request)))


def document(front: Services) -> dict[str, Any]:
    """The figures now, as plain data. Does not block."""
    dispatcher = front.dispatcher
    ledger, now = dispatcher.ledger, dispatcher.now
    snapshot = front.devices.snapshot() if front.devices else None
    return {
        "version": gpufc.__version__,
        "uptime_s": round(time.time() - front.started_at, 3),
        "requests": msgspec.to_builtins(dispatcher.occupancy) | _totals(ledger.requests),
        "tokens": _totals(ledger.tokens)
        | {"generated_per_second": ledger.generation.per_second(now)},
        "workers": [_worker(front, row) for row in front.fleet.workers()],
        "spares": msgspec.to_builtins(front.fleet.spares()),
        "host": msgspec.to_builtins(snapshot.host if snapshot else Host()),
        "devices": msgspec.to_builtins(snapshot.devices) if snapshot else [],
        "sources": msgspec.to_builtins(snapshot.sources) if snapshot else [],
        "latency": {
            "time_to_first_token_seconds": _plain(ledger.time_to_first_token.percentiles()),
            "inter_token_seconds": _plain(ledger.inter_token.percentiles()),
            "request_seconds": _plain(ledger.request.percentiles()),
        },
    }


def _worker(front: Services, row: WorkerStatus) -> dict[str, Any]:
    dispatcher = front.dispatcher
    rate = dispatcher.ledger.by_worker.get(row.name)
    devices = [msgspec.structs.asdict(device) for device in row.devices]
    return _plain(row) | {
        "devices": devices,
        "tokens_per_second": rate.per_second(dispatcher.now) if rate else 0.0,
    }


def _totals(counters: msgspec.Struct) -> dict[str, int]:
    return {f"{name}_total": value for name, value in _plain(counters).items()}


def _plain(struct: msgspec.Struct) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(struct)
    return plain
