"""Some series again, under the names that vLLM's dashboards and Kubernetes' inference gateway read.

The gateway's endpoint picker reads the queue, the KV cache and the LoRA adapters.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.samples import Sample

from supervisor.metrics.endpoint import BLOCK, cells_by_model
from supervisor.metrics.figures import Figures

SAME = {
    "gpufc_num_requests_running": ("vllm:num_requests_running",),
    "gpufc_num_requests_waiting": ("vllm:num_requests_waiting",),
    "gpufc_prompt_tokens": ("vllm:prompt_tokens", "vllm:prefix_cache_queries"),
    "gpufc_prompt_tokens_cached": ("vllm:prefix_cache_hits",),
    "gpufc_generation_tokens": ("vllm:generation_tokens",),
    "gpufc_request_success": ("vllm:request_success",),
    "gpufc_time_to_first_token_seconds": ("vllm:time_to_first_token_seconds",),
    "gpufc_inter_token_latency_seconds": (
        *("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    ),
    "gpufc_e2e_request_latency_seconds": ("vllm:e2e_request_latency_seconds",),
    "gpufc_request_queue_time_seconds": ("vllm:request_queue_time_seconds",),
}
"""vLLM's names of our series. `time_per_output_token_seconds` is an older name, still in use."""

CACHE_NAMES = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
"""0 to 1, in spite of the name. The second one is older."""


def repeated(ours: Iterable[Metric], figures: Figures) -> Iterator[Metric]:
    """The series of `ours` that vLLM has, its names and its label `model_name`."""
    for metric in ours:
        for name in SAME.get(metric.name, ()):
            yield _renamed(metric, name)
    usage = _cache_usage(figures)
    for name in CACHE_NAMES:
        family = GaugeMetricFamily(name, "The used part of the KV cells.", labels=["model_name"])
        for model, value in usage.items():
            family.add_metric([model], value)
        yield family
    yield _cache_sizes(figures)
    yield _adapters(figures)


def _renamed(metric: Metric, name: str) -> Metric:
    renamed = Metric(name, metric.documentation, metric.type)
    for sample in metric.samples:
        labels = {"model_name" if of == "model" else of: v for of, v in sample.labels.items()}
        ours = sample.name.removeprefix(metric.name)
        renamed.samples.append(Sample(name + ours, labels, sample.value))
    return renamed


def _cache_usage(figures: Figures) -> dict[str, float]:
    """By model: over the cells of all its workers."""
    return {name: one.used_ratio for name, one in cells_by_model(figures.workers).items() if one.n}


def _cache_sizes(figures: Figures) -> Metric:
    """The cells of each model, in blocks of vLLM's usual size: the gateway's scorer of prefixes
    takes its own capacity from them."""
    family = GaugeMetricFamily(
        "vllm:cache_config_info",
        "The size of the KV cache of all workers of a model, in blocks; the value is 1.",
        labels=["model_name", "block_size", "num_gpu_blocks"],
    )
    cells: dict[str, int] = {}
    for row in figures.workers:
        if row.facts:
            cells[row.model] = cells.get(row.model, 0) + row.facts.kv_cells
    for model, n in cells.items():
        family.add_metric([model, str(BLOCK), str(n // BLOCK)], 1)
    return family


def _adapters(figures: Figures) -> Metric:
    family = GaugeMetricFamily(
        "vllm:lora_requests_info",
        "The LoRA adapters in use; the value is the time of the scrape in unix seconds.",
        labels=["max_lora", "running_lora_adapters", "waiting_lora_adapters"],
    )
    loaded, running, waiting = 0, set[str](), set[str]()
    for usage in figures.adapters.values():
        loaded += len(usage.loaded)
        running.update(usage.running)
        waiting.update(usage.waiting)
    if loaded:
        family.add_metric([str(loaded), _listed(running), _listed(waiting)], figures.at)
    return family


def _listed(names: Iterable[str]) -> str:
    return ",".join(sorted(names))
