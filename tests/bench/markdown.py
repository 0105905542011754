"""The tables of a results file, from the JSON document of a run. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench.scenarios import SCENARIOS
from tests.bench.table import number, value
from tests.results import Table

Document = Mapping[str, Any]

ALWAYS = ("failed", "short")
"""Metrics that are shown only where they are not zero."""


def comparison(document: Document) -> Table:
    """Each metric that its scenario shows: medians of rounds with the least and the most of a
    round. A ratio above 1 is in favour of the first server."""
    rows = [_compared(entry) for entry in document["comparisons"] if _is_shown(entry)]
    rows += [row for entry in document["batched"] for row in _kernels(entry)]
    return Table(("scenario", "metric", "first server", "other server", "ratio"), rows)


def _is_shown(entry: Document) -> bool:
    if entry["metric"] in ALWAYS:
        return any(entry["medians"].values())
    return entry["metric"] in SCENARIOS[entry["scenario"]].shows


def _compared(entry: Document) -> Sequence[str]:
    first, *others = [
        f"{server}: {value(entry['medians'], entry['spreads'], server)}"
        for server in entry["medians"]
    ]
    ratios = [value(entry["ratios"], entry["ratio_spreads"], server) for server in entry["ratios"]]
    return entry["scenario"], entry["metric"], first, "; ".join(others), "; ".join(ratios)


def _kernels(entry: Document) -> Sequence[Sequence[str]]:
    names = ("llama-batched-bench, decoding", "llama-batched-bench, with prompts")
    shares = entry["reached"] or (None, None)
    return [
        (
            entry["scenario"],
            "output_tokens_per_s",
            "",
            f"{name}: {number(rate)}",
            "" if share is None else number(share),
        )
        for name, rate, share in zip(names, entry["rates"], shares, strict=True)
    ]


def front(document: Document) -> Table:
    """The front over the scripted engine."""
    found = document["front"]
    rows = []
    for cost in found["costs"]:
        rows += [
            (f"{cost['streams']} streams", name, f"{cost[key] / unit:,.{digits}f}")
            for name, key, unit, digits in (
                ("front CPU per token, µs", "cpu_us_per_token", 1, 1),
                ("front CPU per request, µs", "cpu_us_per_request", 1, 0),
                ("tokens/s", "tokens_per_s", 1, 0),
                ("tokens per event", "tokens_per_event", 1, 2),
                ("peak resident memory of the front, MiB", "peak_bytes", 2**20, 0),
            )
        ]
    for what in ("request", "token"):
        added = found[f"per_{what}_ms"]
        rows += [
            (f"added per {what}", f"{name}, ms", f"{added[key]:.2f}")
            for name, key in (("p50", "p50"), ("p99", "p99"), ("engine alone, p50", "engine_p50"))
        ]
    rows += [
        ("refused when full", f"{key}, ms", f"{found['refused_s'][key] * 1000:.1f}")
        for key in ("p50", "p99", "max")
    ]
    return Table(("load", "metric", "value"), rows)


def growth(document: Document) -> Table:
    """Resident memory over many requests."""
    found = document["growth"]
    columns = ("process", "requests", "at the end, MiB", "slope per 100,000 requests, MiB")
    return Table(
        columns,
        [
            (
                process,
                f"{found['requests'][-1]:,}",
                f"{found[f'{key}_bytes'][-1] / 2**20:.1f}",
                f"{found[f'{key}_slope'] / 2**20:+.2f}",
            )
            for process, key in (("front", "front"), ("worker", "workers"))
        ],
    )
