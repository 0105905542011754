"""`GET /stats`: every figure of the front as one document (`API.md` has its shape)."""

import time
from typing import Any

import msgspec
from aiohttp import web

import gpufc
from supervisor.devices.snapshot import Host
from supervisor.fleet.port import WorkerStatus
from supervisor.http.edge.context import Services, json_response, services
from supervisor.http.generation.model_states import state_of


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
        | {"generated_per_second": ledger.generated_per_second(now)},
        "durable": msgspec.to_builtins(front.durable.summary()),
        "cells": msgspec.to_builtins(front.cells.status()) if front.cells else None,
        "network": _network(front),
        "plugins": msgspec.to_builtins(front.hooks.summary()) if front.hooks else [],
        "models": model_rows(front),
        "workers": worker_rows(front),
        "hosts": msgspec.to_builtins(front.hosts()) if front.hosts else None,
        "spares": msgspec.to_builtins(front.fleet.spares()),
        "host": msgspec.to_builtins(snapshot.host if snapshot else Host()),
        "devices": msgspec.to_builtins(snapshot.devices) if snapshot else [],
        "alarms": msgspec.to_builtins(snapshot.alarms) if snapshot else [],
        "sources": msgspec.to_builtins(snapshot.sources) if snapshot else [],
        "latency": {
            "time_to_first_token_seconds": _plain(ledger.time_to_first_token.percentiles()),
            "inter_token_seconds": _plain(ledger.inter_token.percentiles()),
            "request_seconds": _plain(ledger.request.percentiles()),
            "queue_seconds": _plain(ledger.queue.percentiles()),
            "resume_gap_seconds": _plain(ledger.resume_gap.percentiles()),
        },
    }


def _network(front: Services) -> dict[str, Any] | None:
    """The session with a control server, with the models that the principal may see."""
    found = msgspec.to_builtins(front.network())
    if found is not None:
        found["models"] = [model for model in found["models"] if front.shows(model)]
    return found  # type: ignore[no-any-return]


def model_rows(front: Services) -> list[dict[str, Any]]:
    """A row for each served model, loaded or not, as plain data."""
    return [msgspec.to_builtins(state_of(front, model)) for model in front.fleet.models()]


def worker_rows(front: Services) -> list[dict[str, Any]]:
    """A row for each worker, as plain data."""
    return [_worker(front, row) for row in front.fleet.workers()]


def _worker(front: Services, row: WorkerStatus) -> dict[str, Any]:
    dispatcher = front.dispatcher
    rate = dispatcher.ledger.by_worker.get(row.name)
    facts, engine = row.facts, row.engine
    return {
        "name": row.name,
        "machine": row.machine,
        "pid": row.pid,
        "epoch": row.epoch,
        "state": row.state,
        "detail": row.detail,
        "model": row.model,
        "model_path": row.model_path,
        "fingerprint": facts.fingerprint if facts else None,
        "restarts": row.restarts,
        "last_exit": msgspec.to_builtins(row.last_exit),
        "n_ctx": facts.n_ctx if facts else 0,
        "kv_cells_total": facts.kv_cells if facts else 0,
        "kv_cells_used": engine.kv_cells_used if engine else 0,
        "n_threads": engine.n_threads if engine else 0,
        "n_gpu_layers": facts.n_gpu_layers if facts else 0,
        "generates": facts.generates if facts else None,
        "embedding_size": facts.embedding_size if facts else None,
        "sequences_running": engine.n_running if engine else 0,
        "sequences_waiting": engine.n_waiting if engine else 0,
        "rss_bytes": row.rss_bytes,
        "loading_fraction": row.loading_fraction,
        "loaded_in_s": row.loaded_in_s,
        "last_step_at": row.last_step_at,
        "last_heartbeat_at": row.last_heartbeat_at,
        "devices": [msgspec.structs.asdict(one) for one in facts.devices] if facts else [],
        "system_info": facts.system_info if facts else "",
        "template_error": facts.template_error if facts else "",
        "confined": msgspec.to_builtins(facts.confined) if facts else None,
        "tokens_per_second": rate.per_second(dispatcher.now) if rate else 0.0,
    }


def _totals(counters: msgspec.Struct) -> dict[str, int]:
    return {f"{name}_total": value for name, value in _plain(counters).items()}


def _plain(struct: msgspec.Struct) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(struct)
    return plain
