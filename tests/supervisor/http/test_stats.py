"""A worker's row in `/stats`: the facts and the engine's record under their documented names."""

import msgspec
import pytest

from gpufc.facts import EngineDevice
from gpufc.protocol import EnginePhase, EngineStatus
from supervisor.fleet.port import WorkerStatus
from supervisor.http.edge.context import SERVICES
from supervisor.http.service.stats import document
from tests.fakes.facts import model_facts
from tests.fakes.network import network_status
from tests.supervisor.dispatch.fakes import worker_status
from tests.supervisor.http.conftest import Service

NAMES = [
    *("name", "machine", "pid", "epoch", "state", "detail", "model", "model_path", "fingerprint"),
    *("restarts", "last_exit", "n_ctx", "kv_cells_total", "kv_cells_used", "n_threads"),
    *("n_gpu_layers", "generates", "embedding_size"),
    *("sequences_running", "sequences_waiting", "rss_bytes", "loading_fraction", "loaded_in_s"),
    *(
        "last_step_at",
        "last_heartbeat_at",
        "devices",
        "system_info",
        "template_error",
        "confined",
        "tokens_per_second",
    ),
]


async def row(
    service: Service, monkeypatch: pytest.MonkeyPatch, status: WorkerStatus
) -> dict[str, object]:
    monkeypatch.setattr(service.fleet, "workers", lambda: [status])
    (found,) = (await service.get("/stats")).json["workers"]
    assert list(found) == NAMES
    return dict(found)


async def test_a_loaded_worker_shows_its_facts_and_its_engine(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = EngineDevice("CPU", "a processor", "cpu", 1, 2)
    status = msgspec.structs.replace(
        worker_status("default-0"),
        facts=model_facts(n_gpu_layers=1, devices=(device,), system_info="AVX2 = 1"),
        engine=EngineStatus(
            EnginePhase.DECODE, 7, 1.0, 2, n_running=2, n_waiting=3, kv_cells_used=9
        ),
    )
    shown = await row(service, monkeypatch, status)
    assert (shown["fingerprint"], shown["n_ctx"], shown["kv_cells_total"]) == ("fake", 512, 2048)
    assert (shown["kv_cells_used"], shown["n_gpu_layers"], shown["system_info"]) == (
        *(9, 1),
        "AVX2 = 1",
    )
    assert (shown["generates"], shown["embedding_size"]) == (True, 0)
    assert (shown["sequences_running"], shown["sequences_waiting"]) == (2, 3)
    assert shown["devices"] == [
        {
            "name": "CPU",
            "description": "a processor",
            "kind": "cpu",
            "memory_free_bytes": 1,
            "memory_total_bytes": 2,
        }
    ]


async def test_a_worker_that_has_not_loaded_shows_zeroes(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = msgspec.structs.replace(worker_status("default-0"), facts=None, engine=None)
    shown = await row(service, monkeypatch, status)
    empty = ("n_ctx", "kv_cells_total", "kv_cells_used", "n_gpu_layers", "sequences_running")
    assert all(shown[name] == 0 for name in empty)
    assert (shown["fingerprint"], shown["devices"], shown["system_info"]) == (None, [], "")


async def test_the_network_is_shown_with_the_models_that_the_principal_may_see(
    service: Service,
) -> None:
    assert (await service.get("/stats")).json["network"] is None
    joined = msgspec.structs.replace(service.app[SERVICES], network=network_status)
    assert document(joined)["network"]["models"] == ["mine", "other"]
    bound = msgspec.structs.replace(joined, shows=lambda model: model == "mine")
    shown = document(bound)["network"]
    assert (shown["models"], shown["phase"], shown["tasks"]["succeeded"]) == (["mine"], "online", 4)
