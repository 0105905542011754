"""Restarts and swaps on purpose, again and again, while clients come and go."""

import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from tests.chaos import lanes
from tests.chaos.broken_models import not_a_number, truncated
from tests.chaos.footprint import Change, Footprint, at_rest, growth, most_grown
from tests.chaos.history import History, check, longest_silence_s, text_times
from tests.chaos.load import Ask, ask_fake, ask_real, begin, pursue
from tests.chaos.report import Report, reporting, say, spread
from tests.chaos.rig import Rig, rig, stop_and_look, worker, wrong_counters
from tests.integration.commands import command as run_command
from tests.integration.commands import fake_model

N_CLIENTS = 4
N_TOKENS = 48
SPARE_DESCRIPTORS = 8
UNDISTURBED_S = 10.0
"""How long requests are timed before the first replacement, to compare with."""
REFUSED = 5
FAKE = {"GPUFC_BACKEND": "fake", "GPUFC_FAKE_SCRIPT": "step_ms=10"}
ROOMY = {
    "GPUFC_N_CTX": "128",
    "GPUFC_KV_UNIFIED": "false",
    "GPUFC_MAX_CONCURRENT_REQUESTS": "200",
}
"""With a KV stream for each of 200 sequences, a context of 8,192 tokens takes tens of gigabytes."""


class Outcome(Struct):
    """The histories of one run's clients. Times in seconds."""

    before: Footprint
    histories: list[History] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    disturbed_from: float = 0.0

    def of(self, *, disturbed: bool) -> list[History]:
        """Those that began before the first replacement, or after it."""
        return [
            history
            for history in self.histories
            if (history.started_at >= self.disturbed_from) is disturbed
        ]


class Part(lanes.Share, frozen=True):
    """`n` replacements on one service; on the fake backend without models."""

    models: list[Path]


class Tally(lanes.Tally):
    """The figures of clients before the first replacement, and meanwhile. Times in seconds."""

    n_requests: int = 0
    took: list[float] = field(default_factory=list)
    first_before: list[float] = field(default_factory=list)
    first_meanwhile: list[float] = field(default_factory=list)
    silences_before: list[float] = field(default_factory=list)
    silences_meanwhile: list[float] = field(default_factory=list)
    fronts: list[Change] = field(default_factory=list)


async def restarts(n: int, model: Path | None, n_lanes: int) -> Report:
    """`n` restarts under load that no client notices; the fake backend without a model."""
    models = [] if model is None else [model]
    return await _on_lanes(_restart, n, "restarts", models, n_lanes)


async def swaps(n: int, models: Sequence[Path], n_lanes: int) -> Report:
    """`n` swaps to and fro between two models under load that no client notices; between two of
    the fake backend's without any."""
    return await _on_lanes(_swap, n, "swaps", models, n_lanes)


async def _on_lanes(
    how: Callable[[Part], Coroutine[Any, Any, Tally]],
    n: int,
    what: str,
    models: Sequence[Path],
    n_lanes: int,
) -> Report:
    cores = lanes.apart(n_lanes) if models else lanes.together(n_lanes)
    parts = [
        Part(share.lane, share.n, share.seed, list(models))
        for share in lanes.shares(n, 0, len(cores))
    ]
    report = reporting(f"{n} {what}, {lanes.services(parts)}, {N_CLIENTS} clients each")
    return _told(report, await lanes.total(how, parts, cores))


async def _restart(part: Part) -> Tally:
    model = next(iter(part.models), None)
    async with _service(model) as one:
        outcome = Outcome(await at_rest(one.service))
        async with _load(one, outcome, _asks("restart", fake=model is None)):
            for _ in range(part.n):
                pid = worker(await one.figures())["pid"]
                await _replace(one, outcome, "restart")
                if worker(await one.figures())["pid"] == pid:
                    outcome.wrong.append("a restart left the worker where it was")
        return await _verdict(one, outcome)


async def _swap(part: Part) -> Tally:
    with tempfile.TemporaryDirectory(prefix="ch") as folder:
        fakes = [fake_model(Path(folder) / name) for name in ("one.gguf", "two.gguf")]
        chosen = part.models or fakes
        async with _service(chosen[0], fake=not part.models) as one:
            outcome = Outcome(await at_rest(one.service))
            async with _load(one, outcome, _asks("swap", fake=not part.models)):
                for number in range(1, part.n + 1):
                    target = chosen[number % len(chosen)]
                    await _replace(one, outcome, "swap", str(target))
                    served = worker(await one.figures())["model_path"]
                    if Path(served) != target:
                        outcome.wrong.append(f"{served} serves and not {target}")
            return await _verdict(one, outcome)


async def refusals(model: Path) -> Report:
    """Swaps that must be refused, under load: the model before has to go on serving."""
    with tempfile.TemporaryDirectory(prefix="ch") as folder:
        bad = [
            ("half a file", [str(truncated(model, Path(folder)))], "truncated"),
            ("logits that are not numbers", [str(not_a_number(model, Path(folder)))], "trial"),
            ("does not fit", [str(model), "--n-ctx", "8192"], "KV cache"),
        ]
        report = reporting(f"{len(bad)} refused swaps, {N_CLIENTS} clients")
        async with _service(model, extra=ROOMY) as one:
            outcome = Outcome(await at_rest(one.service))
            async with _load(one, outcome, _asks("refusal", fake=False)):
                for name, arguments, word in bad:
                    await _refused(one, outcome, name, arguments, word, model)
            # the flight recorder keeps the end of each that could not take over
            return _told(report, await _verdict(one, outcome, n_deaths=len(bad)))


async def _refused(
    one: Rig, outcome: Outcome, name: str, arguments: list[str], word: str, model: Path
) -> None:
    pid = worker(await one.figures())["pid"]
    code, said = await command(one, "swap", *arguments)
    why = said.splitlines()[-1] if said else ""
    say(f"  {name}: exit code {code}: {why}")
    if code != REFUSED or word not in why:
        outcome.wrong.append(f"{name}: exit code {code}, and the reason does not say {word!r}")
    row = worker(await one.figures())
    if row["state"] != "ready" or row["pid"] != pid or Path(row["model_path"]) != model:
        outcome.wrong.append(f"{name}: {row['model_path']} is {row['state']}, pid {row['pid']}")


@asynccontextmanager
async def _service(
    model: Path | None, *, fake: bool | None = None, extra: dict[str, str] | None = None
) -> AsyncIterator[Rig]:
    is_fake = model is None if fake is None else fake
    arguments = ["--model-path", str(model)] if model else []
    environ = {"GPUFC_LOG_LEVEL": "warning", "GPUFC_N_CTX": "1024"}
    environ |= FAKE if is_fake else {}
    async with rig(*arguments, environ=environ | (extra or {})) as one:
        yield one


def _asks(name: str, *, fake: bool) -> Callable[[int], Ask]:
    def ask(number: int) -> Ask:
        prompt = f"{name} {number}: a short story about the sea and"
        return ask_fake(prompt, N_TOKENS) if fake else ask_real(prompt, N_TOKENS, seed=number)

    return ask


@asynccontextmanager
async def _load(one: Rig, outcome: Outcome, ask: Callable[[int], Ask]) -> AsyncIterator[None]:
    """`N_CLIENTS` that ask one request after the other, for as long as the block runs."""
    numbers, over = itertools.count(), asyncio.Event()

    async def client() -> None:
        while not over.is_set():
            number = next(numbers)
            wanted = ask(number)
            history = begin(f"request {number}", wanted)
            outcome.histories.append(history)
            await pursue(one.session, one.url, wanted, history)

    tasks = [asyncio.create_task(client()) for _ in range(N_CLIENTS)]
    try:
        await asyncio.sleep(UNDISTURBED_S)  # a span of time that is measured, not waited for
        outcome.disturbed_from = time.monotonic()
        yield
    finally:
        over.set()
        await asyncio.gather(*tasks)


async def _replace(one: Rig, outcome: Outcome, *arguments: str) -> None:
    started = time.monotonic()
    code, said = await command(one, *arguments)
    outcome.took.append(time.monotonic() - started)
    if code != 0:
        outcome.wrong.append(f"{' '.join(arguments)} ended with {code}: {said[-300:]}")


async def command(one: Rig, name: str, *arguments: str) -> tuple[int, str]:
    """One of the operator's commands, as a process: its exit code and its output."""
    code, said = await run_command(one.service, name, *arguments)
    return code, said.strip()


async def _verdict(one: Rig, outcome: Outcome, *, n_deaths: int = 0) -> Tally:
    """All figures once the load is over: `n_deaths` workers may have died, each with its record."""
    for history in outcome.histories:
        outcome.wrong += [f"{history.name}: {item}" for item in check(history)]
    outcome.wrong += wrong_counters(await one.until_idle())
    after, grown = await growth(one.service, outcome.before, N_CLIENTS + SPARE_DESCRIPTORS)
    outcome.wrong += grown
    records = len(list((one.service.runtime.path / "crashes").glob("*.json")))
    if records != n_deaths:
        outcome.wrong.append(f"{records} workers have died, expected {n_deaths}")
    outcome.wrong += stop_and_look(one.service)
    before, meanwhile = outcome.of(disturbed=False), outcome.of(disturbed=True)
    return Tally(
        outcome.wrong,
        n_requests=len(outcome.histories),
        took=outcome.took,
        first_before=[*map(first_text_s, before)],
        first_meanwhile=[*map(first_text_s, meanwhile)],
        silences_before=[*map(longest_silence_s, before)],
        silences_meanwhile=[*map(longest_silence_s, meanwhile)],
        fronts=[Change(outcome.before, after)],
    )


def _told(report: Report, tally: Tally) -> Report:
    report.row("requests", tally.n_requests)
    if tally.took:
        report.row("the command", spread(tally.took))
    report.row("first text, before", spread(tally.first_before))
    report.row("longest silence of a stream, before", spread(tally.silences_before))
    report.row("first text, meanwhile", spread(tally.first_meanwhile))
    report.row("longest silence of a stream, meanwhile", spread(tally.silences_meanwhile))
    before, after = most_grown(tally.fronts)
    report.row("the front before", before)
    report.row("the front after", after)
    report.wrong += tally.wrong
    return report


def first_text_s(history: History) -> float:
    """From the request to its first text, in seconds."""
    return next(iter(text_times(history)), sys.float_info.max) - history.started_at
