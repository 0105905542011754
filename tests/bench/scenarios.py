"""The named scenarios, as data; `intruder`, `guided` and `embedding` have
code of their own.

A scenario gives plain metrics. Metrics that end in `_per_s` and `_share` are better when higher,
all others when lower.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import Struct

from supervisor.bench import runner
from supervisor.bench.client import Target
from supervisor.bench.figures import Distribution, Figures, figures
from supervisor.bench.runner import Bounds
from supervisor.bench.workload import Workload
from tests.bench import embedding, guided
from tests.bench.intruder import intrude

Metrics = dict[str, float]

Played = tuple[Metrics, Figures]
Play = Callable[[Target, Workload, Bounds, int], Coroutine[Any, Any, Played]]
"""The last argument is `n_ctx`."""


async def measure(target: Target, workload: Workload, bounds: Bounds, n_ctx: int) -> Played:
    """Measure as `gpufc-supervisor bench` does."""
    found = figures((await runner.run(target, workload, bounds)).outcomes)
    return metrics(found), found


class Scenario(Struct, frozen=True, kw_only=True):
    """A scenario. `slots` is each server's number of sequences; `shows` are the metrics of the
    table.

    `neighbours` busy processes run beside the server once it is loaded.

    With `variants`, gpufc is compared with itself under several values of a configuration key, the
    first value as ours. `is_plain` scenarios can be repeated with llama-batched-bench.
    """

    name: str
    says: str
    slots: int
    workload: Workload
    bounds: Bounds
    shows: tuple[str, ...]
    play: Play = measure
    variants: tuple[str, tuple[str, ...]] | None = None
    is_plain: bool = False
    neighbours: int = 0


RATE = "output_tokens_per_s"
FIRST = ("first_token_p50_ms", "first_token_p99_ms")
GAPS = ("gap_p50_ms", "gap_p99_ms")
PER_TOKEN = "per_token_p50_ms"

SPECULATION = ("speculation", ("ngram", "none"))


def _streams(
    name: str,
    streams: int,
    slots: int,
    requests: int,
    output: int,
    *,
    prompt: int = 128,
    varied: bool = False,
    neighbours: int = 0,
) -> Scenario:
    length = f"{output // 4} to {output * 7 // 4}" if varied else str(output)
    after = "" if prompt == 128 else f" after {prompt}"
    beside = f", beside {neighbours} busy process" if neighbours else ""
    return Scenario(
        name=name,
        says=f"{streams} stream{'s' if streams > 1 else ''}, {length} tokens each{after}{beside}",
        slots=slots,
        workload=Workload(prompt_tokens=prompt, output_tokens=output, varied=varied),
        bounds=Bounds(streams=streams, requests=requests),
        shows=(RATE, *FIRST, *GAPS),
        is_plain=not varied and not neighbours,
        neighbours=neighbours,
    )


def _guided(name: str, streams: int, requests: int) -> Scenario:
    return Scenario(
        name=name,
        says=f"{streams} at once: free answers, and answers that a schema binds",
        slots=max(streams, 4),
        workload=Workload(prompt_tokens=16, output_tokens=64),
        bounds=Bounds(streams=streams, requests=requests),
        shows=guided.SHOWS,
        play=guided.guide,
    )


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        _streams("one", 1, 8, requests=3, output=128),
        _streams("eight", 8, 8, requests=16, output=128),
        _streams("sixteen", 16, 16, requests=32, output=64),
        _streams("short1", 1, 8, requests=6, output=80, prompt=16),
        _streams("short4", 4, 8, requests=16, output=80, prompt=16),
        _streams("short8", 8, 8, requests=24, output=80, prompt=16),
        _streams("short16", 16, 16, requests=48, output=80, prompt=16),
        _streams("long1", 1, 4, requests=3, output=32, prompt=1500),
        _streams("long4", 4, 4, requests=8, output=32, prompt=1500),
        _streams("long8", 8, 8, requests=16, output=32, prompt=1500),
        _streams("long16", 16, 16, requests=32, output=32, prompt=1500),
        _streams("beside1", 1, 8, requests=3, output=96, neighbours=1),
        _streams("beside8", 8, 8, requests=16, output=64, neighbours=1),
        _streams("varied8", 8, 8, requests=24, output=96, varied=True),
        Scenario(
            name="prefix8",
            says="8 at once with a common new prefix of 600 words",
            slots=8,
            workload=Workload(prompt_tokens=40, output_tokens=32, shared_prefix=600),
            bounds=Bounds(streams=8, requests=8),
            shows=(*FIRST, RATE, "cached_share"),
        ),
        Scenario(
            name="multiturn",
            says="8 conversations of 6 turns",
            slots=8,
            workload=Workload(prompt_tokens=60, output_tokens=48, turns=6),
            bounds=Bounds(streams=8, requests=8),
            shows=(*FIRST, RATE, "cached_share", "turns_not_cached"),
        ),
        Scenario(
            name="copying",
            says="1 stream that edits code, greedy, with and without speculation",
            slots=4,
            workload=Workload(prompt_tokens=300, output_tokens=160, copying=True, greedy=True),
            bounds=Bounds(streams=1, requests=3),
            shows=(RATE, PER_TOKEN),
            variants=SPECULATION,
        ),
        Scenario(
            name="ordinary",
            says="1 stream of ordinary text, with and without speculation",
            slots=4,
            workload=Workload(prompt_tokens=128, output_tokens=160),
            bounds=Bounds(streams=1, requests=3),
            shows=(RATE, PER_TOKEN),
            variants=SPECULATION,
        ),
        Scenario(
            name="intruder",
            says="a prompt as long as the context arrives among 8 running streams",
            slots=9,
            workload=Workload(prompt_tokens=64, output_tokens=320),
            bounds=Bounds(streams=8, requests=8),
            shows=("calm_gap_p99_ms", "disturbed_gap_p99_ms", "disturbed_to_calm",
                   "disturbed_gap_max_ms", "intruder_first_token_ms"),
            play=intrude,
        ),
        _guided("guided1", 1, 3),
        _guided("guided16", 16, 16),
        _guided("guided64", 64, 128),
        Scenario(
            name="embed",
            says=f"batches of {embedding.BATCH} texts of 48 words to embed, 2 at once",
            slots=4,
            workload=Workload(prompt_tokens=48),
            bounds=Bounds(streams=2, requests=12),
            shows=embedding.SHOWS,
            play=embedding.embed,
        ),
        Scenario(
            name="embed_beside",
            says=f"{embedding.MOST_INPUTS} inputs to embed arrive among 8 running streams",
            slots=8,
            workload=Workload(prompt_tokens=64, output_tokens=200),
            bounds=Bounds(streams=8, requests=8),
            shows=embedding.BESIDE_SHOWS,
            play=embedding.embed_beside,
        ),
        _streams("gpu1", 1, 8, requests=4, output=256),
        _streams("gpu32", 32, 32, requests=96, output=256),
        _streams("gpu64", 64, 64, requests=192, output=256),
        _streams("gpu128", 128, 128, requests=384, output=256),
        _streams("varied64", 64, 64, requests=256, output=256, varied=True),
    )
}  # fmt: skip


def metrics(found: Figures) -> Metrics:
    """A run's figures as one flat row."""
    row: Metrics = {
        RATE: found.output_tokens_per_s,
        "total_tokens_per_s": found.total_tokens_per_s,
        "cached_share": found.cached_tokens / found.prompt_tokens if found.prompt_tokens else 0.0,
        "turns_not_cached": float(_turns_not_cached(found)),
        "failed": float(found.requests - found.succeeded),
        "short": float(found.short),
    }
    row |= _milliseconds("first_token", found.time_to_first_token_s)
    row |= _milliseconds("gap", found.inter_token_s)
    row |= _milliseconds("per_token", found.per_output_token_s)
    row |= _milliseconds("request", found.request_s)
    return row


def _milliseconds(name: str, values: Distribution | None) -> Metrics:
    if values is None:
        return {}
    return {f"{name}_{k}_ms": getattr(values, k) * 1000 for k in ("p50", "p99", "max")}


def _turns_not_cached(found: Figures) -> int:
    """Number of later turns that did not find the turn before in the cache."""
    pairs = zip(found.turns, found.turns[1:], strict=False)
    return sum(later.cached_tokens < 0.95 * earlier.prompt_tokens for earlier, later in pairs)


def is_better_higher(metric: str) -> bool:
    return metric.endswith(("_per_s", "_share"))
