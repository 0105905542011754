"""What the front costs: its processor time for each token, and what it adds to the engine's own
times. The engine is the scripted one, so that its own times are known and next to nothing.

Processor time is taken from two runs that differ in their length only: the difference is what
tokens cost, what is left is what requests cost. Added time is against the same engine in one
process without a front (`scripts/engine_alone.py`): the client's median and 99th percentile less
the engine's median.
"""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from msgspec import Struct

from gpufc.errors import StartError
from supervisor.bench import runner
from supervisor.bench.client import Api, Target
from supervisor.bench.compare.servers import Gpufc, Running, Setting, running
from supervisor.bench.figures import distribution, gaps, times_to_first_token
from supervisor.bench.outcome import Outcome
from supervisor.bench.runner import Bounds
from supervisor.bench.workload import Workload

ENGINE_ALONE = Path(__file__).resolve().parents[3] / "scripts" / "engine_alone.py"
STEP_MS = 20
PACED_STREAMS, PACED_TOKENS = 32, 200
N_REQUESTS = 400
SINK_BYTES = 1 << 16

HEADER = (
    b"POST /v1/completions HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)


class Cost(Struct, frozen=True, kw_only=True):
    """Of one number of streams."""

    streams: int
    cpu_us_per_token: float
    cpu_us_per_request: float
    tokens_per_s: float
    memory_bytes: int


class Added(Struct, frozen=True, kw_only=True):
    """Milliseconds over the engine's median."""

    engine_p50: float
    p50: float
    p99: float


class FrontFigures(Struct, frozen=True, kw_only=True):
    costs: list[Cost]
    per_request_ms: Added
    per_token_ms: Added


def measure(*, quick: bool = False) -> FrontFigures:
    """Run everything; about a minute. Raises `StartError`."""
    shapes = [(4, 20)] if quick else [(64, 400), (1024, 100)]
    n_requests, n_tokens = (20, 20) if quick else (N_REQUESTS, PACED_TOKENS)
    return FrontFigures(
        costs=[_cost(streams, tokens) for streams, tokens in shapes],
        per_request_ms=_added_per_request(n_requests),
        per_token_ms=_added_per_token(n_tokens),
    )


def lines(found: FrontFigures) -> list[str]:
    """For a terminal."""
    out = [
        f"{cost.streams:5} streams: {cost.cpu_us_per_token:.1f} µs of the front's processor per"
        f" token, {cost.cpu_us_per_request:.0f} µs per request, {cost.tokens_per_s:,.0f} tokens/s,"
        f" {cost.memory_bytes / 2**20:.0f} MiB resident"
        for cost in found.costs
    ]
    for what, added in (("request", found.per_request_ms), ("token", found.per_token_ms)):
        out.append(
            f"added per {what}: p50 {added.p50:.2f} ms, p99 {added.p99:.2f} ms"
            f" (engine alone: {added.engine_p50:.2f} ms)"
        )
    return out


def _service(slots: int, script: str) -> tuple[Gpufc, Setting]:
    keys = {"backend": "fake", "fake_script": script, "standby": "none", "max_queue": "4096"}
    setting = Setting(model=Path("/dev/null"), n_threads=1, n_ctx=4096, slots=slots)
    return Gpufc(keys=keys), setting


def _cost(streams: int, n_tokens: int) -> Cost:
    with running(*_service(streams, "")) as alive:
        uvloop.run(_sink(alive.url, streams, 4))  # warm
        less, more = n_tokens // 4, n_tokens
        short_s, _ = _spent(alive, streams, less)
        long_s, elapsed_s = _spent(alive, streams, more)
        per_token_s = (long_s - short_s) / (streams * (more - less))
        return Cost(
            streams=streams,
            cpu_us_per_token=per_token_s * 1e6,
            cpu_us_per_request=(long_s / streams - per_token_s * more) * 1e6,
            tokens_per_s=streams * more / elapsed_s,
            memory_bytes=alive.memory_bytes(),
        )


def _spent(alive: Running, streams: int, n_tokens: int) -> tuple[float, float]:
    """Seconds of the front's processor and of the clock for so many streams of this length."""
    cpu, clock = alive.front_cpu_s(), time.monotonic()
    uvloop.run(_sink(alive.url, streams, n_tokens))
    return alive.front_cpu_s() - cpu, time.monotonic() - clock


async def _sink(url: str, streams: int, n_tokens: int) -> None:
    """Clients that read bytes and do nothing else. Raises `StartError` for a bad answer."""
    address = urlsplit(url)
    await asyncio.gather(
        *(_drain(address.hostname or "", address.port or 0, i, n_tokens) for i in range(streams))
    )


async def _drain(host: str, port: int, number: int, n_tokens: int) -> None:
    body = b'{"prompt":"stream %d","stream":true,"max_tokens":%d,"ignore_eos":true}'
    payload = body % (number, n_tokens)
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(HEADER % (host.encode(), len(payload)) + payload)
        last = b""
        while data := await reader.read(SINK_BYTES):
            last = (last + data)[-200:]
    finally:
        writer.close()
    if b"[DONE]" not in last:
        raise StartError(f"the front answered {last!r}")


def _added_per_request(n_requests: int) -> Added:
    alone = _engine_alone(streams=1, tokens=1, requests=n_requests, step_ms=0)["first_token_s"]
    workload = Workload(prompt_tokens=4, output_tokens=1)
    seen = _seen(workload, streams=1, requests=n_requests, step_ms=0)
    return _added(times_to_first_token(seen), alone)


def _added_per_token(n_tokens: int) -> Added:
    streams = PACED_STREAMS
    alone = _engine_alone(streams=streams, tokens=n_tokens, requests=streams, step_ms=STEP_MS)
    workload = Workload(prompt_tokens=4, output_tokens=n_tokens)
    seen = _seen(workload, streams=streams, requests=streams, step_ms=STEP_MS)
    return _added([gap for outcome in seen for gap in gaps(outcome)], alone["gaps_s"])


def _seen(workload: Workload, *, streams: int, requests: int, step_ms: int) -> list[Outcome]:
    with running(*_service(streams, f"step_ms={step_ms}")) as alive:
        target = Target(url=alive.url, api=Api.COMPLETIONS)
        bounds = Bounds(streams=streams, requests=requests, warm_up=20)
        outcomes = uvloop.run(runner.run(target, workload, bounds)).outcomes
    failed = next((outcome for outcome in outcomes if outcome.failure), None)
    if failed is not None:
        raise StartError(f"a request failed: {failed.failure} {failed.detail}")
    return outcomes


def _engine_alone(**shape: int) -> dict[str, list[float]]:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in shape.items()]
    try:
        done = subprocess.run(
            [sys.executable, str(ENGINE_ALONE), *options],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as err:
        raise StartError(f"{ENGINE_ALONE.name} failed: {err}") from err
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def _added(seen: list[float], alone: list[float]) -> Added:
    ours, theirs = distribution(seen), distribution(alone)
    if ours is None or theirs is None:
        raise StartError("nothing was measured")
    return Added(
        engine_p50=theirs.p50 * 1000,
        p50=(ours.p50 - theirs.p50) * 1000,
        p99=(ours.p99 - theirs.p50) * 1000,
    )
