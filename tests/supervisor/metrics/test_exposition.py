"""The series of a scrape: names, types and labels, and their values from the figures."""

import shutil
import subprocess

import pytest
from msgspec import structs

from gpufc.ids import WorkerName
from gpufc.protocol import EngineStatus
from supervisor.devices.snapshot import Alarm, AlarmKind, Device, Host, Snapshot
from supervisor.dispatch.dispatcher import Occupancy
from supervisor.dispatch.durations import TIME_TO_FIRST_TOKEN
from supervisor.dispatch.ledger import Ledger, Outcome
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.model_state import ModelPhase, ModelState
from supervisor.fleet.port import HostStatus, SpareState, SpareStatus
from supervisor.fleet.states import WorkerState
from supervisor.metrics.exposition import exposition
from supervisor.metrics.figures import AdapterUsage, Figures
from tests.supervisor.dispatch.fakes import MODEL, worker_status
from tests.supervisor.metrics.scrape import Scrape, label_names

GPU = Device(
    index=0,
    name="a GPU",
    kind="cuda",
    utilization=0.5,
    memory_used_bytes=10,
    memory_total_bytes=20,
    temperature_celsius=60.0,
    power_watts=100.0,
    power_limit_watts=300.0,
    clock_hz=1.5e9,
    pcie_received_bytes_per_s=1e6,
    pcie_sent_bytes_per_s=2e6,
    ecc_uncorrected_errors=0,
)
DEVICE_LABELS = {"gpu", "name", "kind"}

CONTRACT = {
    "gpufc_time_to_first_token_seconds": ("histogram", {"model"}),
    "gpufc_inter_token_latency_seconds": ("histogram", {"model"}),
    "gpufc_e2e_request_latency_seconds": ("histogram", {"model"}),
    "gpufc_request_queue_time_seconds": ("histogram", {"model"}),
    "gpufc_resume_gap_seconds": ("histogram", {"model"}),
    "gpufc_prompt_tokens": ("counter", {"model"}),
    "gpufc_prompt_tokens_cached": ("counter", {"model"}),
    "gpufc_generation_tokens": ("counter", {"model"}),
    "gpufc_tokens_recomputed": ("counter", {"model"}),
    "gpufc_request_success": ("counter", {"model", "finished_reason"}),
    "gpufc_requests_rejected": ("counter", {"model", "reason"}),
    "gpufc_streams_resumed": ("counter", {"model"}),
    "gpufc_requests_lost": ("counter", {"model"}),
    "gpufc_engine_restarts": ("counter", {"reason"}),
    "gpufc_num_requests_running": ("gauge", {"model"}),
    "gpufc_num_requests_waiting": ("gauge", {"model"}),
    "gpufc_kv_cache_usage_ratio": ("gauge", {"model", "worker"}),
    "gpufc_model_state": ("gauge", {"model", "state"}),
    "gpufc_model_loads": ("counter", {"model"}),
    "gpufc_worker_state": ("gauge", {"model", "worker", "state"}),
    "gpufc_gpu_utilization_ratio": ("gauge", DEVICE_LABELS),
    "gpufc_gpu_memory_used_bytes": ("gauge", DEVICE_LABELS),
    "gpufc_gpu_temperature_celsius": ("gauge", DEVICE_LABELS),
    "gpufc_gpu_power_watts": ("gauge", DEVICE_LABELS),
    "gpufc_host_memory_available_bytes": ("gauge", set()),
    "gpufc_process_resident_memory_bytes": ("gauge", {"role", "worker"}),
    "gpufc_endpoint_requests_running": ("gauge", set()),
    "gpufc_endpoint_requests_waiting": ("gauge", set()),
    "gpufc_endpoint_kv_usage_ratio": ("gauge", set()),
    "vllm:num_requests_running": ("gauge", {"model_name"}),
    "vllm:num_requests_waiting": ("gauge", {"model_name"}),
    "vllm:kv_cache_usage_perc": ("gauge", {"model_name"}),
    "vllm:gpu_cache_usage_perc": ("gauge", {"model_name"}),
    "vllm:lora_requests_info": (
        *("gauge", {"max_lora", "running_lora_adapters", "waiting_lora_adapters"}),
    ),
    "vllm:time_to_first_token_seconds": ("histogram", {"model_name"}),
    "vllm:time_per_output_token_seconds": ("histogram", {"model_name"}),
    "vllm:request_success": ("counter", {"model_name", "finished_reason"}),
}


def ledger() -> Ledger:
    made = Ledger()
    of_model = made.of(MODEL)
    for seconds in (0.001, 0.03, 3000.0):
        of_model.time_to_first_token.add(seconds)
    of_model.generated(7, WorkerName("default-0"), 0.0)
    of_model.ended(Outcome.SUCCEEDED, 1.0, "length")
    of_model.ended(Outcome.REJECTED, 1.0, "context_length_exceeded")
    of_model.ended(Outcome.LOST, 1.0)
    return made


def figures() -> Figures:
    engine = EngineStatus(kv_cells_used=512)
    workers = [
        structs.replace(worker_status("default-0"), engine=engine, rss_bytes=3),
        structs.replace(
            worker_status("default-1"), state=WorkerState.BACKOFF, facts=None, machine="a"
        ),
    ]
    return Figures(
        version="1.2.3",
        at=1000.0,
        totals=ledger().totals(),
        occupancies={MODEL: Occupancy(2, 5)},
        adapters={MODEL: AdapterUsage(("a", "b"), frozenset({"b", "a"}), frozenset())},
        workers=workers,
        spares=[SpareStatus(pid=2, state=SpareState.WARM, rss_bytes=4)],
        restarts={Reason.KILLED: 2},
        machine=Snapshot(
            host=Host(memory_available_bytes=5, memory_total_bytes=9, cpu_percent=50.0),
            devices=(GPU,),
            sources=(),
            alarms=(Alarm(kind=AlarmKind.HOT, subject="cuda0", text="hot", since=1.0),),
        ),
        front_rss_bytes=6,
        network={
            "phase": "online",
            "last_heartbeat_at": None,
            "tasks": dict.fromkeys(("succeeded", "failed", "cancelled", "refused"), 7)
            | {"lost": 1, "generated_tokens": 70},
            "tasks_running": 2,
            "tasks_waiting": 3,
            "connections": 4,
        },
        models=[ModelState(name=MODEL, state=ModelPhase.READY, n_loads=3)],
        hosts=[HostStatus(machine="a", state="joined", n_losses=2)],
        cells={
            "connected": True,
            "state": "owner",
            "others": 2,
            "replicated": 3,
            "orphans": 1,
            "batches_total": 8,
            "taken_over_total": 4,
            "fenced_total": 1,
            "local_total": 5,
        },
    )


def scraped(given: Figures) -> Scrape:
    return Scrape(exposition(given).decode())


@pytest.fixture(scope="module")
def scrape() -> Scrape:
    return scraped(figures())


@pytest.mark.parametrize("name", CONTRACT)
def test_a_promised_series_has_its_type_and_labels(scrape: Scrape, name: str) -> None:
    kind, labels = CONTRACT[name]
    assert scrape.families[name].type == kind
    assert label_names(scrape.families.values(), name) == labels


def test_every_series_is_described(scrape: Scrape) -> None:
    assert all(family.documentation.endswith(".") for family in scrape.families.values())


def test_the_series_without_values_are_named_all_the_same(scrape: Scrape) -> None:
    empty = scraped(
        structs.replace(figures(), totals={}, workers=[], machine=None, adapters={}, occupancies={})
    )
    assert set(empty.families) == set(scrape.families)


def test_values_are_those_of_the_figures(scrape: Scrape) -> None:
    in_model = {"model": MODEL}
    assert scrape.labelled("gpufc_generation_tokens_total", **in_model) == 7
    assert scrape.labelled("gpufc_requests_lost_total", **in_model) == 1
    succeeded = {
        reason: scrape.labelled("gpufc_request_success_total", finished_reason=reason, **in_model)
        for reason in ("stop", "length")
    }
    assert succeeded == {"stop": 0, "length": 1}
    reason = "context_length_exceeded"
    assert scrape.labelled("gpufc_requests_rejected_total", reason=reason, **in_model) == 1
    assert scrape.labelled("gpufc_engine_restarts_total", reason="killed") == 2
    assert scrape.labelled("gpufc_num_requests_waiting", **in_model) == 5
    gpu = {"gpu": "0", "name": "a GPU", "kind": "cuda"}
    assert scrape.labelled("gpufc_gpu_power_watts", **gpu) == 100
    assert scrape["gpufc_host_memory_available_bytes"] == 5
    assert scrape["gpufc_host_cpu_utilization_ratio"] == 0.5
    assert scrape.labelled("gpufc_alarm", kind="hot", subject="cuda0") == 1
    assert scrape.labelled("gpufc_build_info", version="1.2.3") == 1


def test_a_histogram_is_cumulative_and_ends_with_its_count(scrape: Scrape) -> None:
    name = "gpufc_time_to_first_token_seconds"
    expected = [sum(s <= le for s in (0.001, 0.03)) for le in TIME_TO_FIRST_TOKEN]
    assert scrape.buckets(name, model=MODEL) == [*expected, 3]
    assert scrape[f"{name}_count"] == 3
    assert scrape[f"{name}_sum"] == pytest.approx(3000.031)


def test_a_worker_is_in_one_state_and_has_a_cache_once_it_is_loaded(scrape: Scrape) -> None:
    for worker, state in (("default-0", "ready"), ("default-1", "backoff")):
        of = {"model": MODEL, "worker": worker}
        states = {s: scrape.labelled("gpufc_worker_state", state=s, **of) for s in WorkerState}
        assert [s for s, value in states.items() if value == 1] == [state]
        assert sum(states.values()) == 1
    usage = {key: v for key, v in scrape.values.items() if key[0] == "gpufc_kv_cache_usage_ratio"}
    assert list(usage.values()) == [0.25]


def test_memory_is_told_by_role(scrape: Scrape) -> None:
    name = "gpufc_process_resident_memory_bytes"
    roles = (("front", ""), ("worker", "default-0"), ("worker", "default-1"), ("spare", ""))
    found = [scrape.labelled(name, role=role, worker=worker) for role, worker in roles]
    assert found == [6, 3, 0, 4]


def test_a_figure_that_the_driver_lacks_is_no_series() -> None:
    machine = Snapshot(host=Host(), devices=(structs.replace(GPU, power_watts=None),), sources=())
    names = scraped(structs.replace(figures(), machine=machine)).sample_names()
    assert "gpufc_gpu_power_watts" not in names
    assert "gpufc_gpu_temperature_celsius" in names


def test_vllm_s_names_have_the_same_values(scrape: Scrape) -> None:
    assert scrape.labelled("vllm:num_requests_running", model_name=MODEL) == 2
    assert scrape.labelled("vllm:generation_tokens_total", model_name=MODEL) == 7
    assert scrape.labelled("vllm:kv_cache_usage_perc", model_name=MODEL) == 0.25
    assert scrape.buckets("vllm:time_to_first_token_seconds", model_name=MODEL) == (
        scrape.buckets("gpufc_time_to_first_token_seconds", model=MODEL)
    )
    assert scrape.labelled("vllm:prefix_cache_queries_total", model_name=MODEL) == (
        scrape.labelled("gpufc_prompt_tokens_total", model=MODEL)
    )
    (sizes,) = (key for key in scrape.values if key[0] == "vllm:cache_config_info")
    assert ("block_size", "16") in sizes[1]
    adapters = {"max_lora": "2", "running_lora_adapters": "a,b", "waiting_lora_adapters": ""}
    assert scrape.labelled("vllm:lora_requests_info", **adapters) == 1000


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (Debian: prometheus) is missing")
def test_promtool_accepts_all_but_the_colons_in_vllm_s_names() -> None:
    result = subprocess.run(
        ["promtool", "check", "metrics"],
        input=exposition(figures()),
        capture_output=True,
        timeout=60,
    )
    complaints = result.stderr.decode().splitlines()
    assert complaints
    assert [
        line
        for line in complaints
        if not (line.startswith("vllm:") and line.endswith("should not contain ':'"))
    ] == []


def test_a_network_has_its_figures(scrape: Scrape) -> None:
    assert scrape.labelled("gpufc_network_online") == 1
    assert scrape.labelled("gpufc_network_tasks_total", outcome="succeeded") == 7
    assert scrape.labelled("gpufc_network_generation_tokens_total") == 70
    assert scrape.labelled("gpufc_network_last_heartbeat_timestamp_seconds") == 0


def test_a_front_without_a_network_has_no_figures_of_one() -> None:
    text = exposition(structs.replace(figures(), network=None)).decode()
    assert not [line for line in text.splitlines() if line.startswith("gpufc_network")]


def test_machines_have_their_series_only_with_a_cluster(scrape: Scrape) -> None:
    assert scrape.labelled("gpufc_hosts", state="joined") == 1
    assert scrape.labelled("gpufc_hosts", state="lost") == 0
    assert scrape.labelled("gpufc_host_losses_total", machine="a") == 2
    of = {"model": MODEL, "worker": "default-1", "machine": "a"}
    assert scrape.labelled("gpufc_worker_machine", **of) == 1
    text = exposition(structs.replace(figures(), hosts=None)).decode()
    assert "gpufc_host_losses" not in text


def test_fronts_that_share_durable_requests_have_their_series_only_with_nats(
    scrape: Scrape,
) -> None:
    assert scrape.labelled("gpufc_cells_connected") == 1
    assert scrape.labelled("gpufc_cells_state", state="owner") == 1
    assert scrape.labelled("gpufc_cells_state", state="alone") == 0
    assert scrape.labelled("gpufc_cells_others") == 2
    assert scrape.labelled("gpufc_cells_taken_over_total") == 4
    assert scrape.labelled("gpufc_cells_local_total") == 5
    text = exposition(structs.replace(figures(), cells=None)).decode()
    assert not [line for line in text.splitlines() if line.startswith("gpufc_cells")]
