"""The front's costs: its processor time for each token, and the time that it adds to the engine's.
The scripted engine's own times are known and close to zero.

Processor time comes from two runs of different length: the difference is the cost of tokens, the
rest the cost of requests. Added time is the client's median and 99th percentile minus the median of
the same engine in one process without a front (`scripts/lab/engine_alone.py`).
"""

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from statistics import median

from msgspec import Struct

from gpufc.errors import StartError
from supervisor.bench.figures import Distribution, distribution
from tests.bench.servers import Gpufc, Running, Setting, running
from tests.bench.sink import ask, occupying

ENGINE_ALONE = Path(__file__).resolve().parents[2] / "scripts" / "lab" / "engine_alone.py"
MAKE_CERTIFICATE = Path(__file__).resolve().parents[2] / "scripts" / "certificate"
STEP_MS = 20
PACED_STREAMS = 32
WARM_UP = 20
BUSY_TOKENS = 4000
FULL_WITHIN_S = 20.0


class Cost(Struct, frozen=True, kw_only=True):
    """The cost with one number of streams: medians of some runs. `peak_bytes` is resident memory.

    `tokens_per_event` above 1 means that the machine was so busy that the front sent several tokens
    at once, which costs less.
    """

    streams: int
    cpu_us_per_token: float
    cpu_us_per_request: float
    tokens_per_s: float
    tokens_per_event: float
    peak_bytes: int


class Added(Struct, frozen=True, kw_only=True):
    """Milliseconds above the engine's median."""

    engine_p50: float
    p50: float
    p99: float


class FrontFigures(Struct, frozen=True, kw_only=True):
    """All figures of the front. `refused_s` is the time of a 503 while all places are taken."""

    costs: list[Cost]
    per_request_ms: Added
    per_token_ms: Added
    refused_s: Distribution


class Size(Struct, frozen=True, kw_only=True):
    """The size of the measurement. `costs` pairs numbers of streams with the tokens of each."""

    costs: tuple[tuple[int, int], ...] = ((64, 500), (1024, 100))
    runs: int = 3
    requests: int = 2000
    paced_tokens: int = 400
    busy_streams: int = 64
    refused: int = 500


QUICK = Size(costs=((4, 500),), runs=3, requests=20, paced_tokens=20, busy_streams=4, refused=10)


Keys = Mapping[str, str]
"""More keys of the front's configuration."""

NO_KEYS: Keys = {}


def measure(size: Size, *, tls: bool = False) -> FrontFigures:
    """Measure everything, over TLS if it is wanted. Raises `StartError`."""
    with _certificate() if tls else nullcontext(NO_KEYS) as keys:
        return FrontFigures(
            costs=[_cost(streams, tokens, size.runs, keys) for streams, tokens in size.costs],
            per_request_ms=_added_per_request(size.requests, keys),
            per_token_ms=_added_per_token(size.paced_tokens, keys),
            refused_s=_refused(size.busy_streams, size.refused, keys),
        )


@contextmanager
def _certificate() -> Iterator[Keys]:
    """A self-signed certificate, as the keys that name it."""
    with tempfile.TemporaryDirectory(prefix="gb") as folder:
        try:
            subprocess.run([str(MAKE_CERTIFICATE), folder], check=True, capture_output=True)
        except (OSError, subprocess.SubprocessError) as err:
            raise StartError(f"{MAKE_CERTIFICATE.name} failed: {err}") from err
        yield {"tls_cert": f"{folder}/cert.pem", "tls_key": f"{folder}/key.pem"}


def lines(found: FrontFigures) -> list[str]:
    """The figures as lines of text."""
    out = [
        f"{cost.streams:5} streams: {cost.cpu_us_per_token:.1f} µs of the front's processor per"
        f" token ({1e6 / cost.cpu_us_per_token:,.0f} tokens/s a core),"
        f" {cost.cpu_us_per_request:.0f} µs per request; {cost.tokens_per_s:,.0f} tokens/s here,"
        f" {cost.tokens_per_event:.2f} tokens an event, {cost.peak_bytes / 2**20:.0f} MiB resident"
        for cost in found.costs
    ]
    for what, added in (("request", found.per_request_ms), ("token", found.per_token_ms)):
        out.append(
            f"added per {what}: p50 {added.p50:.2f} ms, p99 {added.p99:.2f} ms"
            f" (engine alone: {added.engine_p50:.2f} ms)"
        )
    refused = found.refused_s
    out.append(
        f"refused when full: p50 {refused.p50 * 1000:.1f} ms, p99 {refused.p99 * 1000:.1f} ms,"
        f" max {refused.max * 1000:.1f} ms"
    )
    return out


def service(
    slots: int, script: str = "", *, queue: int = 4096, more: Keys = NO_KEYS
) -> tuple[Gpufc, Setting]:
    """The front over the scripted engine."""
    keys = {"backend": "fake", "fake_script": script, "max_queue": str(queue), **more}
    # all clients have one address
    keys["max_connections_per_address"] = "4096"
    setting = Setting(model=Path("/dev/null"), n_threads=1, n_ctx=4096, slots=slots)
    return Gpufc(keys=keys), setting


def _cost(streams: int, n_tokens: int, runs: int, keys: Keys) -> Cost:
    with running(*service(streams, more=keys)) as alive:
        ask(alive.url, clients=streams, tokens=4, trusted=alive.trusted)  # warm-up
        measured = [
            (_spent(alive, streams, n_tokens // 5), _spent(alive, streams, n_tokens))
            for _ in range(runs)
        ]
        peak_bytes = alive.peak_bytes()
    per_token = median((b.cpu_s - a.cpu_s) / (b.n_tokens - a.n_tokens) for a, b in measured)
    long = [b for _, b in measured]
    return Cost(
        streams=streams,
        cpu_us_per_token=per_token * 1e6,
        cpu_us_per_request=median((b.cpu_s - per_token * b.n_tokens) / streams for b in long) * 1e6,
        tokens_per_s=median(b.n_tokens / b.elapsed_s for b in long),
        tokens_per_event=median(b.n_tokens / b.n_events for b in long),
        peak_bytes=peak_bytes,
    )


class _Spent(Struct, frozen=True, kw_only=True):
    """One run's processor time and duration."""

    cpu_s: float
    elapsed_s: float
    n_tokens: int
    n_events: int


def _spent(alive: Running, streams: int, n_tokens: int) -> _Spent:
    cpu_s, began = alive.front_cpu_s(), time.monotonic()
    answers = ask(alive.url, clients=streams, tokens=n_tokens, trusted=alive.trusted)
    return _Spent(
        cpu_s=alive.front_cpu_s() - cpu_s,
        elapsed_s=time.monotonic() - began,
        n_tokens=streams * n_tokens,
        n_events=sum(len(answer.text_at) for answer in answers),
    )


def _added_per_request(n_requests: int, keys: Keys) -> Added:
    alone = _engine_alone(streams=1, tokens=1, requests=n_requests, step_ms=0)["first_token_s"]
    with running(*service(1, "step_ms=0", more=keys)) as alive:
        trusted = alive.trusted
        ask(alive.url, clients=1, requests=WARM_UP, tokens=1, trusted=trusted)
        seen = ask(alive.url, clients=1, requests=n_requests, tokens=1, trusted=trusted)
    return _added([answer.text_at[0] - answer.began_at for answer in seen], alone)


def _added_per_token(n_tokens: int, keys: Keys) -> Added:
    streams = PACED_STREAMS
    alone = _engine_alone(streams=streams, tokens=n_tokens, requests=streams, step_ms=STEP_MS)
    with running(*service(streams, f"step_ms={STEP_MS}", more=keys)) as alive:
        ask(alive.url, clients=streams, tokens=WARM_UP, trusted=alive.trusted)
        seen = ask(alive.url, clients=streams, tokens=n_tokens, trusted=alive.trusted)
    gaps = [b - a for answer in seen for a, b in pairwise(answer.text_at)]
    return _added(gaps, alone["gaps_s"])


def _refused(streams: int, n_requests: int, keys: Keys) -> Distribution:
    """The time of a refusal while `streams` run and as many wait."""
    places = 2 * streams
    script = f"step_ms={STEP_MS}"
    with (
        running(*service(streams, script, queue=streams, more=keys)) as alive,
        occupying(alive.url, places, BUSY_TOKENS, alive.trusted),
    ):
        _wait_until_full(alive, places)
        seen = ask(
            alive.url,
            clients=1,
            requests=n_requests,
            tokens=1,
            status=503,
            trusted=alive.trusted,
        )
    return _required(distribution(answer.ended_at - answer.began_at for answer in seen))


def _wait_until_full(alive: Running, places: int) -> None:
    deadline = time.monotonic() + FULL_WITHIN_S
    while time.monotonic() < deadline:
        address = f"{alive.url}/stats"
        with urllib.request.urlopen(address, timeout=5, context=alive.trusted) as answer:
            requests = json.load(answer)["requests"]
        if requests["running"] + requests["waiting"] == places:
            return
        time.sleep(0.02)
    raise StartError(f"{places} requests are not there after {FULL_WITHIN_S:.0f} s")


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
    ours, theirs = _required(distribution(seen)), _required(distribution(alone))
    return Added(
        engine_p50=theirs.p50 * 1000,
        p50=(ours.p50 - theirs.p50) * 1000,
        p99=(ours.p99 - theirs.p50) * 1000,
    )


def _required(values: Distribution | None) -> Distribution:
    if values is None:
        raise StartError("nothing was measured")
    return values
