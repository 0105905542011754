"""The sums for a balancer: the same as `/metrics` has, without labels, at next to no cost."""

import pytest
from msgspec import structs

from gpufc.errors import Overloaded
from gpufc.protocol import EngineStatus
from supervisor.dispatch.dispatcher import Occupancy
from supervisor.dispatch.request import ANONYMOUS
from supervisor.http.edge.context import SERVICES
from supervisor.http.service.metrics import ENDPOINT
from supervisor.metrics.endpoint import KV_S, Cells, Endpoint, cells_by_model
from tests.growth import calls
from tests.supervisor.dispatch.fakes import request, until, worker_status
from tests.supervisor.http.conftest import running
from tests.supervisor.metrics.scrape import Scrape
from tests.supervisor.metrics.test_exposition import figures, scraped

GAUGES = ("requests_running", "requests_waiting", "kv_usage_ratio")
PICKED = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")

MOST_CALLS = 150
"""Of a scrape, without the way through the server."""


def shows_all(_model: str) -> bool:
    return True


def test_the_sums_are_over_all_models_and_have_no_labels() -> None:
    cells = Cells(500, 1000), Cells(0, 3000)
    text = Endpoint.of((Occupancy(1, 2), Occupancy(30, 40)), cells).text().decode()
    seen = Scrape(text)
    expected = (31, 42, 0.125)
    assert tuple(seen.labelled(f"gpufc_endpoint_{name}") for name in GAUGES) == expected
    assert tuple(seen.labelled(f"vllm:{name}") for name in PICKED) == expected
    assert seen.labelled("vllm:cache_config_info", block_size="16", num_gpu_blocks="250") == 1


def test_a_front_without_workers_has_no_used_cells() -> None:
    assert Scrape(Endpoint.of((), ()).text().decode())["vllm:kv_cache_usage_perc"] == 0


def test_both_scrapes_agree() -> None:
    given = figures()
    cells = cells_by_model(given.workers).values()
    few = Scrape(Endpoint.of(given.occupancies.values(), cells).text().decode())
    for name in GAUGES:
        assert few.labelled(f"gpufc_endpoint_{name}") == scraped(given).labelled(
            f"gpufc_endpoint_{name}"
        )


async def test_the_route_answers_with_the_load_of_now() -> None:
    async with running(slots=1) as service:
        worker = service.fleet.start_worker(auto=False)
        for _ in range(3):
            service.dispatcher.submit(request(), ANONYMOUS)
        await until(lambda: worker.active)
        answer = await service.get("/metrics/endpoint")
        whole = await service.get("/metrics")
        assert answer.headers["Content-Type"] == whole.headers["Content-Type"]
        seen = Scrape(answer.body.decode())
        assert seen["gpufc_endpoint_requests_running"] == 1
        assert seen["gpufc_endpoint_requests_waiting"] == 2
        service.dispatcher.end_all(Overloaded("stopped"))


async def test_the_workers_are_looked_at_a_few_times_a_second_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as service:
        front = service.app[SERVICES]
        row = structs.replace(worker_status("default-0"), engine=EngineStatus(kv_cells_used=7))
        looks: list[float] = []
        now = [100.0]

        def workers() -> list[object]:
            looks.append(now[0])
            return [row] * 1000

        monkeypatch.setattr(service.fleet, "workers", workers)
        monkeypatch.setattr(front.dispatcher, "_clock", lambda: now[0])
        watch = service.app[ENDPOINT]
        for scrape in range(40):
            now[0] = 100.0 + scrape / 20
            assert watch.now(shows_all).cells.used == 7000
        assert len(looks) <= 2 / KV_S + 1
        assert calls(lambda: watch.now(shows_all).text()) <= MOST_CALLS


async def test_a_key_sees_the_load_of_its_models_only() -> None:
    async with running() as service:
        service.fleet.start_worker(auto=False)
        service.dispatcher.submit(request(), ANONYMOUS)
        watch = service.app[ENDPOINT]
        seen, hidden = watch.now(shows_all), watch.now(lambda _model: False)
        assert seen.running + seen.waiting == 1
        assert hidden.running + hidden.waiting == 0
