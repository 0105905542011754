"""The embedding scenarios: how many inputs a second, and what a large batch does to streams.

llama-server embeds only when it is started with `--embeddings`, and then it does nothing else: give
it by `--llama-server-arguments`, or measure gpufc `--alone`.
"""

import asyncio
import time
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct, structs

from supervisor.bench import client
from supervisor.bench.client import Target
from supervisor.bench.figures import Figures, figures
from supervisor.bench.outcome import Failure, Outcome
from supervisor.bench.runner import Bounds, Load
from supervisor.bench.workload import Workload, conversation
from tests.bench.intruder import CALM_TOKENS, Intrusion, all_run
from tests.bench.intruder import metrics as gap_metrics

BATCH = 64
"""Inputs of one request of the throughput scenario."""
MOST_INPUTS = 2048
"""As many as one request may have."""
SHOWS = ("inputs_per_s", "input_tokens_per_s", "request_ms")
BESIDE_SHOWS = ("calm_gap_p99_ms", "disturbed_gap_p50_ms", "disturbed_gap_p99_ms",
                "disturbed_to_calm", "inputs_beside")  # fmt: skip


class Usage(Struct):
    prompt_tokens: int


class Embedded(Struct):
    """The parts of an answer that are looked at."""

    data: list[Any]
    usage: Usage


async def embed(
    target: Target, workload: Workload, bounds: Bounds, _n_ctx: int
) -> tuple[dict[str, float], Figures]:
    """The throughput of `bounds.requests` batches over `bounds.streams` connections."""
    outcomes: list[Outcome] = []
    batches = iter(range(bounds.requests or 1))
    async with client.session(target.key) as http:
        await _batch(http, target, workload, -1, BATCH)

        async def one_client() -> None:
            for number in batches:
                outcomes.append(await _batch(http, target, workload, number, BATCH))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(bounds.streams):
                tasks.create_task(one_client())
    return metrics(outcomes), figures(outcomes)


async def embed_beside(
    target: Target, workload: Workload, bounds: Bounds, _n_ctx: int
) -> tuple[dict[str, float], Figures]:
    """The gaps of running streams before and during one request of as many inputs as it may have.
    It is broken off when the streams have ended."""
    async with client.session(target.key) as http:
        load = Load(http, target, workload, lambda _: None)
        short = structs.replace(workload, prompt_tokens=16)
        calm = min(CALM_TOKENS, workload.output_tokens // 4)
        async with asyncio.timeout(bounds.grace_s), asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(load.converse(conversation(workload, index)))
                for index in range(bounds.streams)
            ]
            while not all_run(load.outcomes, bounds.streams, calm):  # noqa: ASYNC110  (no event to wait for)
                await asyncio.sleep(0.02)
            began_at = time.monotonic()
            batch = tasks.create_task(_batch(http, target, short, 1, MOST_INPUTS))
            await asyncio.wait({batch, tasks.create_task(_all(running))},
                               return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
            ended_at = time.monotonic()
            is_whole = batch.done()
            batch.cancel()
    row = gap_metrics(load.outcomes, Intrusion(began_at, ended_at))
    row["inputs_beside"] = float(MOST_INPUTS if is_whole else 0)
    return row, figures(load.outcomes)


async def _all(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)


async def _batch(
    http: aiohttp.ClientSession, target: Target, workload: Workload, number: int, size: int
) -> Outcome:
    """Embed the texts of one batch. Different batches have different texts."""
    texts = [conversation(workload, number * size + at).turns[0] for at in range(size)]
    body: dict[str, Any] = {"input": texts, "encoding_format": "base64"}
    outcome = Outcome(conversation=number, turn=0, asked_tokens=0, began_at=time.monotonic())
    url = target.endpoint.rpartition("/v1/")[0] + "/v1/embeddings"
    async with http.post(url, json=body) as response:
        answer = await response.read()
    outcome.ended_at = time.monotonic()
    if response.status != 200:
        outcome.failure, outcome.detail = Failure.REFUSED, answer[:200].decode("utf-8", "replace")
        return outcome
    found = msgspec.json.decode(answer, type=Embedded)
    if len(found.data) != size:
        outcome.failure, outcome.detail = Failure.CUT, f"{len(found.data)} of {size} vectors"
    outcome.prompt_tokens = found.usage.prompt_tokens
    return outcome


def metrics(outcomes: list[Outcome]) -> dict[str, float]:
    """Rates of good requests over the whole run."""
    good = [one for one in outcomes if one.failure is None]
    elapsed_s = max(one.ended_at for one in outcomes) - min(one.began_at for one in outcomes)
    return {
        "inputs_per_s": BATCH * len(good) / elapsed_s,
        "input_tokens_per_s": sum(one.prompt_tokens for one in good) / elapsed_s,
        "request_ms": 1000 * sum(one.ended_at - one.began_at for one in good) / max(1, len(good)),
        "failed": float(len(outcomes) - len(good)),
    }
