"""The intruder scenario: the effect of a very long prompt on running streams.

When each stream has had some tokens, the intruder's request is sent. The streams are disturbed
until its first token arrives. Gaps before and during that time are compared within one run.
"""

import asyncio
import time

from msgspec import Struct, structs

from supervisor.bench import client
from supervisor.bench.client import Target
from supervisor.bench.figures import Figures, distribution, figures
from supervisor.bench.outcome import Outcome
from supervisor.bench.runner import Bounds, Load
from supervisor.bench.workload import Workload, conversation

CALM_TOKENS = 40
"""Tokens of each stream before the intrusion, which define the calm gaps."""

OUTPUT_TOKENS = 8

ROOM = 160
"""Tokens of the context that the prompt leaves: for chat template, system prompt and answer."""

POLL_S = 0.02


class Intrusion(Struct, frozen=True):
    """Times of the intruder's request and of its first token."""

    began_at: float
    ended_at: float


async def intrude(
    target: Target, workload: Workload, bounds: Bounds, n_ctx: int
) -> tuple[dict[str, float], Figures]:
    """Metrics of the intrusion, and the figures of the streams."""
    prompt_tokens = max(1, n_ctx - ROOM)
    calm = min(CALM_TOKENS, workload.output_tokens // 4)
    async with client.session(target.key) as http:
        load = Load(http, target, workload, lambda _: None)
        long = structs.replace(workload, prompt_tokens=prompt_tokens, output_tokens=OUTPUT_TOKENS)
        intruder = Load(http, target, long, lambda _: None)
        async with asyncio.timeout(bounds.grace_s), asyncio.TaskGroup() as tasks:
            for index in range(bounds.streams):
                tasks.create_task(load.converse(conversation(workload, index)))
            while not all_run(load.outcomes, bounds.streams, calm):  # noqa: ASYNC110  (no event to wait for)
                await asyncio.sleep(POLL_S)
            await intruder.converse(conversation(long, -100))
    (asked,) = intruder.outcomes
    ended_at = asked.text_at[0] if asked.text_at else time.monotonic()
    found = figures(load.outcomes)
    return metrics(load.outcomes, Intrusion(asked.began_at, ended_at)), found


def all_run(outcomes: list[Outcome], streams: int, calm: int) -> bool:
    """Whether each stream has had its calm tokens or has ended."""
    ready = [o for o in outcomes if len(o.text_at) >= calm or o.ended_at]
    return len(ready) == streams


def metrics(outcomes: list[Outcome], intrusion: Intrusion) -> dict[str, float]:
    """Metrics of gaps that ended before the intrusion, and of gaps that overlap it.
    `disturbed_to_calm` is the ratio of their 99th percentiles.

    Gaps before all streams had begun are left out: they contain other streams' prefills.
    """
    began = max((o.text_at[0] for o in outcomes if o.text_at), default=0.0)
    calm, disturbed = [], []
    for outcome in outcomes:
        for earlier, later in zip(outcome.text_at, outcome.text_at[1:], strict=False):
            if earlier >= began and later <= intrusion.began_at:
                calm.append(later - earlier)
            elif later > intrusion.began_at and earlier < intrusion.ended_at:
                disturbed.append(later - earlier)
    row = {"intruder_first_token_ms": (intrusion.ended_at - intrusion.began_at) * 1000}
    for name, values in (("calm", distribution(calm)), ("disturbed", distribution(disturbed))):
        if values is not None:
            row |= {f"{name}_gap_{k}_ms": getattr(values, k) * 1000 for k in ("p50", "p99", "max")}
    if "calm_gap_p99_ms" in row and "disturbed_gap_p99_ms" in row:
        row["disturbed_to_calm"] = row["disturbed_gap_p99_ms"] / row["calm_gap_p99_ms"]
    row["failed"] = float(sum(outcome.failure is not None for outcome in outcomes))
    return row
