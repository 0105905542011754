"""The series of dispatch, by model: latencies, tokens, requests by their end, the queue."""

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import Metric
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from gpufc.protocol import FinishReason
from supervisor.dispatch.durations import INTER_TOKEN, REQUEST, TIME_TO_FIRST_TOKEN, Histogram
from supervisor.dispatch.ledger import NO_MODEL, ModelTotals
from supervisor.metrics.figures import Figures
from supervisor.metrics.series import counter, gauge

SUCCESSES = (FinishReason.STOP, FinishReason.LENGTH)


def of_requests(figures: Figures) -> Iterator[Metric]:
    """All of them."""
    served = {name: one for name, one in figures.totals.items() if name != NO_MODEL}
    yield from _latencies(served)
    yield from _tokens(served)
    yield from _requests(figures.totals, served)
    yield from _occupancy(figures)


def _latencies(served: Mapping[str, ModelTotals]) -> Iterator[Metric]:
    for name, kind, bounds, text in (
        (
            *("time_to_first_token", "time_to_first_token", TIME_TO_FIRST_TOKEN),
            "From a request to the first token of each sequence.",
        ),
        (
            *("inter_token_latency", "inter_token", INTER_TOKEN),
            "Between the tokens of a sequence; the mean of a step with several.",
        ),
        (
            *("e2e_request_latency", "request", REQUEST),
            "From a request to its end, of requests that succeeded.",
        ),
        (
            *("request_queue_time", "queue", REQUEST),
            "From a request to the start of its first sequence.",
        ),
        (
            *("resume_gap", "resume_gap", TIME_TO_FIRST_TOKEN),
            "Between two tokens of a sequence that changed its worker.",
        ),
    ):
        family = HistogramMetricFamily(f"gpufc_{name}_seconds", text, labels=["model"])
        les = [*map(floatToGoString, bounds), "+Inf"]
        for model, totals in served.items():
            histogram = totals.durations.get(kind, Histogram((0,) * len(les), 0.0))
            buckets = list(zip(les, map(float, accumulate(histogram.counts)), strict=True))
            family.add_metric([model], buckets, histogram.total_s)
        yield family


def _tokens(served: Mapping[str, ModelTotals]) -> Iterator[Metric]:
    for name, field, text in (
        ("prompt_tokens", "prompt", "Tokens of prompts."),
        ("prompt_tokens_cached", "prompt_cached", "Tokens of prompts from the prefix cache."),
        ("generation_tokens", "generated", "Generated tokens."),
        ("tokens_recomputed", "recomputed", "Tokens that were computed again for a replay."),
    ):
        values = [([model], getattr(one.tokens, field)) for model, one in served.items()]
        yield counter(name, text, ["model"], values)


def _requests(
    totals: Mapping[str, ModelTotals], served: Mapping[str, ModelTotals]
) -> Iterator[Metric]:
    yield counter(
        "request_success",
        "Requests that succeeded.",
        ["model", "finished_reason"],
        [
            ([model, reason], count)
            for model, one in served.items()
            for reason, count in (dict.fromkeys(SUCCESSES, 0) | one.succeeded).items()
        ],
    )
    yield counter(
        "requests_rejected",
        "Requests that were refused before any of their sequences ran, by the error's code.",
        ["model", "reason"],
        [
            ([model, reason], count)
            for model, one in totals.items()
            for reason, count in ({"overloaded": 0} | one.rejected).items()
        ],
    )
    for name, field, text in (
        ("streams_resumed", "replayed", "Sequences that went on with another worker."),
        ("requests_lost", "lost", "Failed requests that a worker's death ended."),
        ("requests_failed", "failed", "Requests that failed, lost ones included."),
        ("requests_cancelled", "cancelled", "Requests that their clients left."),
    ):
        values = [([model], getattr(one, field)) for model, one in served.items()]
        yield counter(name, text, ["model"], values)


def _occupancy(figures: Figures) -> Iterator[Metric]:
    each = figures.occupancies.items()
    running = [([model], one.running) for model, one in each]
    waiting = [([model], one.waiting) for model, one in each]
    yield gauge("num_requests_running", "Sequences that run.", ["model"], running)
    yield gauge("num_requests_waiting", "Sequences that wait.", ["model"], waiting)
