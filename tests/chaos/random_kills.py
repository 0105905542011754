"""Random faults at random moments under load; every token of every stream is known."""

import asyncio
import collections
import random
import signal
import time

from msgspec import field

from tests.chaos import lanes
from tests.chaos.footprint import STILL_S, Change, at_rest, growth, most_grown
from tests.chaos.history import History, check, longest_silence_s
from tests.chaos.load import Ask, ask_fake, begin, pursue
from tests.chaos.report import Report, reporting, say, spread
from tests.chaos.rig import (
    Missed,
    Rig,
    generated,
    rig,
    send,
    stop_and_look,
    worker,
    wrong_counters,
)

ENVIRON = {
    "GPUFC_BACKEND": "fake",
    "GPUFC_FAKE_SCRIPT": "step_ms=1",
    "GPUFC_RESTART_LIMIT": "10000",
    "GPUFC_MAX_CONCURRENT_REQUESTS": "16",
    "GPUFC_LOG_LEVEL": "warning",
}
N_CLIENTS = 24
TOKENS_BETWEEN = (100, 1300)
SIGNALS = (signal.SIGKILL,) * 4 + (signal.SIGSEGV, signal.SIGABRT)
INSIDE = (
    *("raise", "decode_error", "nan", "exit", "segv", "abort", "kill"),
    *("garbage", "oversize"),
)
INSIDE_SHARE = 0.2
"""The share of faults that a stream brings along, at a position of its own."""
SILENCE_S = 5.0


class Tally(lanes.Tally):
    """Counts so far. `n_bad` streams have violations; others are the front's."""

    n_streams: int = 0
    n_whole: int = 0
    n_kills: int = 0
    n_bad: int = 0
    n_replays: int = 0
    faults: collections.Counter[str] = field(default_factory=collections.Counter)
    silences: list[float] = field(default_factory=list)
    fronts: list[Change] = field(default_factory=list)


class Storm:
    """Clients that ask without end, and one killer, until so many faults have hit."""

    def __init__(self, one: Rig, n_faults: int, seed: int) -> None:
        self.tally = Tally()
        self._one = one
        self._n_faults = n_faults
        self._dice = random.Random(seed)
        self._asks = random.Random(seed + 1)
        self._latest: collections.deque[History] = collections.deque(maxlen=64)
        self._n_asked = 0
        self._inside: str | None = None
        self._over = False

    async def run(self) -> Tally:
        async with asyncio.TaskGroup() as group:
            for _ in range(N_CLIENTS):
                group.create_task(self._client())
            try:
                while self.tally.n_kills < self._n_faults:
                    await self._fault()
                    if self.tally.n_kills % 100 == 0:
                        say(f"  {self.tally.n_kills} faults, {self.tally.n_streams} streams")
            finally:
                self._over = True
        return self.tally

    async def _client(self) -> None:
        while not self._over:
            self._n_asked += 1
            name = f"stream {self._n_asked}"
            ask = self._ask(name)
            history = begin(name, ask)
            self._latest.append(history)
            await pursue(self._one.session, self._one.url, ask, history)
            self._judge(history)

    def _ask(self, name: str) -> Ask:
        dice = self._asks
        emoji = "[[emoji]]" if dice.random() < 0.2 else ""
        fault, self._inside = self._inside, None
        if fault is not None:
            fault = f"[[{fault}@{dice.randint(-1, 15)} once={self._one.once()}]]"
        return ask_fake(
            f"{emoji}{fault or ''}{name} " + "word " * dice.randint(0, 30),
            dice.randint(20, 60),
            streamed=dice.random() < 0.8,
            n=2 if dice.random() < 0.1 else 1,
        )

    def _judge(self, history: History) -> None:
        tally = self.tally
        tally.n_streams += 1
        tally.n_whole += not history.streamed
        others = [other for other in self._latest if other is not history]
        found = check(history, others)
        tally.n_bad += bool(found)
        tally.wrong += [f"{history.name} after {tally.n_kills} faults: {item}" for item in found]
        if history.streamed:
            tally.silences.append(longest_silence_s(history))

    async def _fault(self) -> None:
        """One fault after some more tokens; it has hit when a later epoch serves."""
        one, dice = self._one, self._dice
        row = await one.until_ready()
        start = generated(await one.figures()) + dice.randint(*TOKENS_BETWEEN)
        found = await one.until(
            lambda now: generated(now) >= start or worker(now)["epoch"] > row["epoch"], "tokens"
        )
        if worker(found)["epoch"] == row["epoch"]:
            if dice.random() < INSIDE_SHARE:
                name = self._inside = dice.choice(INSIDE)
            else:
                number = dice.choice(SIGNALS)
                name = number.name
                try:
                    send(row["pid"], number)
                except Missed:
                    name = "late"
            self.tally.faults[name] += 1
        await one.until_ready(after=row["epoch"])
        self.tally.n_kills += 1


async def run(n_kills: int, seed: int, n_lanes: int) -> Report:
    """Random faults of all kinds; no stream may lose, repeat or cross a token."""
    parts = lanes.shares(n_kills, seed, n_lanes)
    report = reporting(
        f"{n_kills} random faults, {lanes.services(parts)}, {N_CLIENTS} clients each, seed {seed}"
    )
    started = time.monotonic()
    tally = await lanes.total(_play, parts, lanes.together(n_lanes))
    report.wrong += tally.wrong
    report.head(
        f"streams that lost, repeated or crossed a token under {tally.n_kills} random faults",
        f"{tally.n_bad} of {tally.n_streams:,}",
    )
    report.row("answers in one piece among them", tally.n_whole)
    report.row("replays", tally.n_replays)
    report.row("faults", ", ".join(f"{n} {name}" for name, n in tally.faults.most_common()))
    report.row("longest silence of a stream", spread(tally.silences))
    report.row(
        f"streams silent for more than {SILENCE_S:.0f} s",
        sum(silence > SILENCE_S for silence in tally.silences),
    )
    before, after = most_grown(tally.fronts)
    report.row("the front before", before)
    report.row("the front after", after)
    report.row("duration", f"{time.monotonic() - started:.0f} s")
    return report


async def _play(share: lanes.Share) -> Tally:
    async with rig(environ=ENVIRON) as one:
        before = await at_rest(one.service, STILL_S)
        tally = await Storm(one, share.n, share.seed).run()
        figures = await one.until_idle()
        after, grown = await growth(one.service, before, N_CLIENTS + 3)
        tally.wrong += wrong_counters(figures) + grown
        restarts = worker(figures)["restarts"]
        if restarts < share.n:
            tally.wrong.append(f"only {restarts} restarts")
        tally.wrong += stop_and_look(one.service)
    tally.n_replays = figures["requests"]["replayed_total"]
    tally.fronts.append(Change(before, after))
    return tally
