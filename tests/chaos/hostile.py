"""Hostile prompts of 1 to 4 MiB under each large pre-tokenizer, beside a client of short prompts.

No prompt may end a worker, and the other client's first token may come no more than `LATE_S` later
than without them. `tests.fuzz.prompts` compares the tokens of shorter texts.

A lane has processors of its own: lanes do not disturb each other's times.
"""

import asyncio
import collections
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct, field

from gpufc.config import LimitsConfig
from tests.chaos import lanes
from tests.chaos.history import Expected, check
from tests.chaos.load import Ask, ask_real, run_ask
from tests.chaos.report import Report, reporting, say, spread
from tests.chaos.rig import Rig, rig, stop_and_look
from tests.engine_worker.prompts.vocabularies import LARGE, write_model
from tests.fuzz.hostile_texts import text

N_SENDERS = 2
LATE_S = 1.0
N_PROBES = 20
"""Short prompts before the hostile ones."""
N_TOKENS = 2
LEAST_BYTES, MOST_BYTES = 1 << 20, 4 << 20
MOST_JSON_BYTES = LimitsConfig().max_body_bytes - 1024
"""Of a prompt, beside the other fields of its body."""
PART_PROMPTS = 60
"""Of one service where there are several lanes, so that all lanes end at about the same time."""
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
"""Of the demo model."""
EXPECTED_STATUS = {200, 400}
ENVIRON = {"GPUFC_LOG_LEVEL": "warning"}


class Part(Struct, frozen=True):
    """The hostile prompts of one service: the texts of these seeds under one pre-tokenizer."""

    model: Path
    pre: str
    seeds: range


class Tally(lanes.Tally):
    """Counts of one pre-tokenizer, or of one part. Times to the first token are in seconds."""

    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    undisturbed: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    n_deaths: int = 0

    @property
    def late_s(self) -> float:
        """How much later the latest first token came beside hostile prompts."""
        return max(self.beside, default=0.0) - max(self.undisturbed, default=0.0)


async def run(model: Path, n_each: int, seed: int, n_lanes: int) -> Report:
    """`n_each` hostile prompts under each pre-tokenizer, in at most `n_lanes` services at once."""
    cores = lanes.apart(n_lanes)
    report = reporting(
        f"hostile: {n_each} prompts of 1 to 4 MiB under each of {len(LARGE)} pre-tokenizers,"
        f" {N_SENDERS} at once in each of {len(cores)} services, seed {seed}"
    )
    tallies = {pre: Tally() for pre in LARGE}
    parts = list(_parts(model, n_each, seed, len(cores)))
    for part, tally in zip(parts, await lanes.play(_play, parts, cores), strict=True):
        late = tally.late_s
        if late > LATE_S:
            tally.wrong.append(f"a first token came {late:.1f} s later")
        tallies[part.pre].add(tally)
    n_deaths = n_sent = 0
    for pre, tally in tallies.items():
        n_deaths += tally.n_deaths
        n_sent += tally.statuses.total()
        answers = ", ".join(f"{n} × {status}" for status, n in sorted(tally.statuses.items()))
        report.row(f"{pre}: answers", answers)
        report.row(f"{pre}: first token, undisturbed", spread(tally.undisturbed))
        report.row(f"{pre}: first token, beside hostile prompts", spread(tally.beside))
        if tally.n_deaths:
            report.wrong.append(f"{pre}: {tally.n_deaths} deaths")
        report.wrong += [f"{pre}: {item}" for item in tally.wrong]
    report.head("workers that hostile prompts ended", f"{n_deaths} under {n_sent:,} prompts")
    return report


def _parts(model: Path, n_each: int, seed: int, n_lanes: int) -> Iterator[Part]:
    size = n_each if n_lanes == 1 else min(n_each, PART_PROMPTS)
    for number, pre in enumerate(LARGE):
        seeds = range(seed + number * n_each, seed + (number + 1) * n_each)
        for at in range(0, n_each, size):
            yield Part(model, pre, seeds[at : at + size])


async def _play(part: Part) -> Tally:
    with tempfile.TemporaryDirectory() as folder:
        path = write_model(part.model, Path(folder) / "model.gguf", pre=part.pre)
        tally = await _under(path, list(part.seeds))
    say(f"  {part.pre}: {len(part.seeds)} hostile prompts, {tally.late_s:.2f} s later")
    return tally


async def _under(model: Path, seeds: list[int]) -> Tally:
    tally = Tally()
    async with rig("--model-path", str(model), environ=ENVIRON) as one:
        before = (await one.until_ready())["restarts"]
        for number in range(N_PROBES):
            tally.undisturbed.append(await _probe(one, tally, number))
        over = asyncio.Event()
        probing = asyncio.create_task(_probe_until(one, tally, over))
        await asyncio.gather(*(_send(one, tally, seeds[at::N_SENDERS]) for at in range(N_SENDERS)))
        over.set()
        await probing
        tally.n_deaths = (await one.until_idle())["workers"][0]["restarts"] - before
        tally.wrong += stop_and_look(one.service)
    return tally


async def _probe_until(one: Rig, tally: Tally, over: asyncio.Event) -> None:
    number = N_PROBES
    while not over.is_set():
        tally.beside.append(await _probe(one, tally, number))
        number += 1


async def _probe(one: Rig, tally: Tally, number: int) -> float:
    """Seconds to the first token of a short prompt, which is answered whole."""
    ask = ask_real(f"{number} gardens and", N_TOKENS, cache_prompt=False)
    history = await run_ask(one.session, one.url, ask, f"short {number}")
    tally.wrong += [f"{history.name}: {item}" for item in check(history)]
    return history.first_s


async def _send(one: Rig, tally: Tally, seeds: list[int]) -> None:
    for seed in seeds:
        prompt = await asyncio.to_thread(_prompt, seed)
        ask = Ask(prompt, 1, Expected(1, None, None, "length"), streamed=False)
        history = await run_ask(one.session, one.url, ask, f"hostile {seed}")
        tally.statuses[history.status] += 1
        if history.status not in EXPECTED_STATUS:
            tally.wrong.append(f"{history.name}: {history.status} {history.broke or history.body}")


def _prompt(seed: int) -> str:
    """One text whose UTF-8 has between the lengths, or as much of it as a body may have: some
    characters are six times as long in JSON."""
    size = random.Random(seed).randint(LEAST_BYTES, MOST_BYTES)
    prompt = text(seed, SPECIAL, size, size).encode()[:size].decode("utf-8", "ignore")
    n_chars = len(prompt)
    while (n_bytes := len(json.dumps(prompt))) > MOST_JSON_BYTES:
        n_chars = n_chars * MOST_JSON_BYTES // n_bytes
        prompt = prompt[:n_chars]
    return prompt
