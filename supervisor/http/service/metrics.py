"""`GET /metrics`: the figures of `/stats` as Prometheus' series (`API.md` has their names).

`GET /metrics/endpoint` is a part of them that costs next to nothing.
"""

import asyncio
import math
import os
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec
from aiohttp import web

import gpufc
from supervisor.dispatch.dispatcher import Occupancy
from supervisor.fleet.followed import rss_bytes_of
from supervisor.http.edge.context import Services, services
from supervisor.http.generation.model_states import state_of
from supervisor.metrics.endpoint import KV_S, Cells, Endpoint, cells_by_model
from supervisor.metrics.figures import AdapterUsage, Figures

T = TypeVar("T")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class EndpointWatch:
    """The sums for a balancer. Owned by the application; counts the KV cells seldom."""

    def __init__(self, front: Services) -> None:
        self._front = front
        self._cells: dict[str, Cells] = {}
        self._counted_at = -math.inf

    def now(self, shows: Callable[[str], bool]) -> Endpoint:
        """The sums over the models that `shows` admits. Does not block."""
        dispatcher = self._front.dispatcher
        now = dispatcher.now
        if now >= self._counted_at + KV_S:
            self._cells, self._counted_at = cells_by_model(self._front.fleet.workers()), now
        return Endpoint.of(
            (one for model, one in dispatcher.occupancies().items() if shows(model)),
            (one for model, one in self._cells.items() if shows(model)),
        )


ENDPOINT = web.AppKey("endpoint", EndpointWatch)


async def get_endpoint(request: web.Request) -> web.Response:
    """The load of the front in a few sums as Prometheus' text."""
    found = request.app[ENDPOINT].now(services(request).shows)
    return web.Response(body=found.text(), headers={"Content-Type": CONTENT_TYPE})


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
        cells=msgspec.to_builtins(front.cells.status()) if front.cells else None,
    )


def _shown(front: Services, by_model: dict[str, T]) -> dict[str, T]:
    return {model: one for model, one in by_model.items() if not model or front.shows(model)}


def exposition_of(figures: Figures) -> tuple[bytes, str]:
    """The text and its type. In a thread: it takes milliseconds, and first loads a library."""
    from supervisor.metrics.exposition import CONTENT_TYPE, exposition

    return exposition(figures), CONTENT_TYPE
