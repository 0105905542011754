"""`GET /metrics` over a fake fleet: the figures of `/stats`, through any number of deaths."""

import asyncio

from supervisor.dispatch.ledger import Ledger
from supervisor.fleet.exit_reason import Reason
from supervisor.http.edge.context import SERVICES
from supervisor.http.service.metrics import figures_of
from supervisor.metrics.exposition import exposition
from tests.growth import calls
from tests.supervisor.dispatch.fakes import MODEL, FakeWorker, until
from tests.supervisor.http.conftest import Service, running
from tests.supervisor.metrics.scrape import Scrape

N_DEATHS = 20

COUNTED = {
    "succeeded_total": "gpufc_request_success_total",
    "rejected_total": "gpufc_requests_rejected_total",
    "failed_total": "gpufc_requests_failed_total",
    "cancelled_total": "gpufc_requests_cancelled_total",
    "lost_total": "gpufc_requests_lost_total",
    "replayed_total": "gpufc_streams_resumed_total",
    "running": "gpufc_num_requests_running",
    "waiting": "gpufc_num_requests_waiting",
}


async def scrape(service: Service) -> Scrape:
    answer = await service.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape(answer.body.decode())


async def test_the_sums_are_those_of_stats(service: Service) -> None:
    for max_tokens in (None, 2, 4):
        await service.complete(max_tokens=max_tokens)
    assert (await service.complete(prompt="x" * 5000)).status == 400
    assert (await service.complete(prompt=["a", "b"], n=2)).status == 200
    seen, stats = await scrape(service), (await service.get("/stats")).json
    for key, name in COUNTED.items():
        assert seen[name] == stats["requests"][key], name
    assert stats["requests"]["succeeded_total"] == 4
    assert seen["gpufc_generation_tokens_total"] == stats["tokens"]["generated_total"] > 0
    assert seen["gpufc_prompt_tokens_total"] == stats["tokens"]["prompt_total"] > 0
    assert seen["gpufc_e2e_request_latency_seconds_count"] == 4
    n_sequences = 3 + 4
    assert seen["gpufc_time_to_first_token_seconds_count"] == n_sequences
    n_tokens = stats["tokens"]["generated_total"]
    assert seen["gpufc_inter_token_latency_seconds_count"] == n_tokens - n_sequences
    assert seen["gpufc_request_queue_time_seconds_count"] == 4
    of = {"model": MODEL, "finished_reason": "length"}
    assert seen.labelled("gpufc_request_success_total", **of) == 2


async def test_a_served_model_has_its_counters_before_the_first_request() -> None:
    async with running() as service:
        seen = await scrape(service)
    assert seen.labelled("gpufc_generation_tokens_total", model=MODEL) == 0
    assert seen.labelled("gpufc_num_requests_waiting", model=MODEL) == 0
    assert seen["gpufc_process_resident_memory_bytes"] > 0


async def test_counters_go_on_over_worker_deaths() -> None:
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        worker.n_tokens = N_DEATHS + 1
        asked = asyncio.create_task(service.complete(max_tokens=N_DEATHS + 1))
        before: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for death in range(1, N_DEATHS + 1):
            await step(worker)
            worker = replaced(service, worker)
            seen = await scrape(service)
            counters = {
                key: value
                for key, value in seen.values.items()
                if key[0].endswith(("_total", "_count", "_sum", "_bucket"))
            }
            assert all(value >= before.get(key, 0) for key, value in counters.items())
            assert seen["gpufc_streams_resumed_total"] == death
            assert seen["gpufc_generation_tokens_total"] == death
            assert seen["gpufc_resume_gap_seconds_count"] == death - 1
            assert seen.labelled("gpufc_engine_restarts_total", reason="killed") == death
            before = counters
        await step(worker)
        assert (await asked).json["usage"]["completion_tokens"] == N_DEATHS + 1
        seen = await scrape(service)
        assert seen["gpufc_resume_gap_seconds_count"] == N_DEATHS
        assert seen["gpufc_time_to_first_token_seconds_count"] == 1
        assert seen["gpufc_request_queue_time_seconds_count"] == 1


async def step(worker: FakeWorker) -> None:
    """One token, once the worker has a sequence."""
    await until(lambda: worker.active)
    worker.step()


def replaced(service: Service, worker: FakeWorker) -> FakeWorker:
    """Kill a worker; the next one, which answers as it did."""
    worker.die()
    service.fleet.restarts_total[Reason.KILLED] += 1
    fresh = service.fleet.start_worker(auto=False)
    fresh.n_tokens = worker.n_tokens
    return fresh


async def test_the_adapters_in_use_are_named() -> None:
    async with running(slots=1) as service:
        service.fleet.adapter_names = ("legal", "medical")
        worker = service.fleet.start_worker(auto=False)
        asked = [asyncio.create_task(service.complete(lora=[{"id": 1, "scale": 1.0}]))]
        await until(lambda: worker.active)
        asked.append(asyncio.create_task(service.complete(lora=[{"id": 0, "scale": 1.0}])))
        await until(lambda: service.dispatcher.occupancy.waiting)
        seen = await scrape(service)
        worker.auto = True
        worker.go()
        assert [(await one).status for one in asked] == [200, 200]
    labels = {"running_lora_adapters": "medical", "waiting_lora_adapters": "legal", "max_lora": "2"}
    assert seen.labelled("vllm:lora_requests_info", **labels) > 0


async def test_a_scrape_does_not_stop_the_loop(service: Service) -> None:
    """The figures are copied in the loop and written in a thread."""
    await service.complete()
    front = service.app[SERVICES]
    figures = figures_of(front)
    assert calls(lambda: figures_of(front)) < calls(lambda: exposition(figures)) / 4


def test_an_observation_costs_a_few_calls_however_many_there_were() -> None:
    add = Ledger().of(MODEL).inter_token.add
    assert calls(lambda: add(0.0123)) < 16
    assert calls(lambda: [add(0.0123) for _ in range(10_000)]) < 16 * 10_000
