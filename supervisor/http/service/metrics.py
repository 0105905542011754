"""`GET /metrics`: the figures of `/stats` as Prometheus' series (`API.md` has their names)."""

import asyncio
import os
import time
from typing import TypeVar

import msgspec
from aiohttp import web

import gpufc
from supervisor.dispatch.dispatcher import Occupancy
from supervisor.fleet.process import rss_bytes_of
from supervisor.http.edge.context import Services, services
from supervisor.http.generation.model_states import state_of
from supervisor.metrics.figures import AdapterUsage, Figures

T = TypeVar("T")


async def get_metrics(request: web.Request) -> web.Response:
    """All figures as Prometheus' text."""
    body, content_type = await asyncio.to_thread(exposition_of, figures_of(services(request)))
    return web.Response(body=body, headers={"Content-Type": content_type})


def figures_of(front: Services) -> Figures:
    """The figures now. Nothing changes them later. Does not block."""
    dispatcher, fleet = front.dispatcher, front.fleet
    models = fleet.models()
    for model in models:
        dispatcher.ledger.of(model)  # its counters begin at 0, before the first request
    return Figures(
        version=gpufc.__version__,
        at=time.time(),
        totals=_shown(front, dispatcher.ledger.totals()),
        occupancies=dict.fromkeys(models, Occupancy(0, 0))
        | _shown(front, dispatcher.occupancies()),
        adapters={
            model: AdapterUsage(loaded, *dispatcher.adapters_in_use(model))
            for model in models
            if (loaded := fleet.adapters(model))
        },
        workers=fleet.workers(),
        spares=fleet.spares(),
        restarts=fleet.restarts_total,
        machine=front.devices.snapshot() if front.devices else None,
        front_rss_bytes=rss_bytes_of(os.getpid()),
        network=msgspec.to_builtins(front.network()),
        models=[state_of(front, model) for model in models],
        hosts=front.hosts() if front.hosts else None,
    )


def _shown(front: Services, by_model: dict[str, T]) -> dict[str, T]:
    return {model: one for model, one in by_model.items() if not model or front.shows(model)}


def exposition_of(figures: Figures) -> tuple[bytes, str]:
    """The text and its type. In a thread: it takes milliseconds, and first loads a library."""
    from supervisor.metrics.exposition import CONTENT_TYPE, exposition

    return exposition(figures), CONTENT_TYPE
