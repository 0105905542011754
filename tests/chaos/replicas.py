"""Two workers of one model, one of them killed again and again: the other one goes on at once."""

import asyncio
import random
import signal
import time

from msgspec import Struct, field

from tests.chaos.history import check
from tests.chaos.load import ask_fake, begin, pursue
from tests.chaos.report import Report, reporting
from tests.chaos.rig import Missed, Rig, occupancy, rig, send, stop_and_look, wrong_counters

ENVIRON = {
    "GPUFC_BACKEND": "fake",
    "GPUFC_FAKE_SCRIPT": "step_ms=5",
    "GPUFC_REPLICAS": "2",
    "GPUFC_RESTART_LIMIT": "10000",
    "GPUFC_MAX_CONCURRENT_REQUESTS": "8",
    "GPUFC_LOG_LEVEL": "warning",
}
N_CLIENTS = 8
"""As many as one worker has places, so that its streams find room on the other one."""
KILL_EVERY_S = 5.0
GAP_S = 0.3


class Tally(Struct):
    """Counts so far."""

    n_streams: int = 0
    n_kills: int = 0
    wrong: list[str] = field(default_factory=list)


class Storm:
    """Clients that ask without end, and one killer, for so many seconds."""

    def __init__(self, one: Rig, seconds: float, seed: int) -> None:
        self.tally = Tally()
        self._one = one
        self._ends_at = time.monotonic() + seconds
        self._dice = random.Random(seed)

    async def run(self) -> Tally:
        async with asyncio.TaskGroup() as group:
            for number in range(N_CLIENTS):
                group.create_task(self._client(number))
            group.create_task(self._killer())
        return self.tally

    @property
    def _is_over(self) -> bool:
        return time.monotonic() > self._ends_at

    async def _client(self, number: int) -> None:
        dice = random.Random(number)
        while not self._is_over:
            name = f"client {number} stream {self.tally.n_streams}"
            ask = ask_fake(f"{name} " + "word " * 5, dice.randint(50, 300))
            history = begin(name, ask)
            await pursue(self._one.session, self._one.url, ask, history)
            self.tally.n_streams += 1
            self.tally.wrong += [f"{name}: {item}" for item in check(history)]

    async def _killer(self) -> None:
        while not self._is_over:
            await asyncio.sleep(KILL_EVERY_S)
            found = await self._one.until(
                lambda now: sum(row["state"] == "ready" for row in now["workers"]) == 2,
                "two workers are ready",
            )
            try:
                send(self._dice.choice(found["workers"])["pid"], signal.SIGKILL)
            except Missed:
                continue
            self.tally.n_kills += 1


async def run(seconds: int, seed: int) -> Report:
    """No stream breaks, and streams go on within `GAP_S`."""
    report = reporting(f"2 replicas, one killed every {KILL_EVERY_S:.0f} s for {seconds} s")
    async with rig(environ=ENVIRON) as one:
        tally = await Storm(one, seconds, seed).run()
        figures = await one.until(lambda now: occupancy(now) == (0, 0), "idle")
        report.wrong += tally.wrong + wrong_counters(figures)
        report.wrong += stop_and_look(one.service)
    gap = figures["latency"]["resume_gap_seconds"]
    report.head(
        f"streams that went wrong under {tally.n_kills} kills of one of two workers",
        f"{len(tally.wrong)} of {tally.n_streams:,}",
    )
    report.row("from the last token before a kill to the next one", _spread(gap))
    report.row("replays", figures["requests"]["replayed_total"])
    if gap["p50"] is None or gap["p50"] > GAP_S:
        report.wrong.append(f"half of the streams went on after {gap['p50']} s")
    return report


def _spread(gap: dict[str, float | None]) -> str:
    if gap["p50"] is None or gap["p99"] is None:
        return "none"
    return f"p50 {gap['p50']:.3f} s, p99 {gap['p99']:.3f} s"
