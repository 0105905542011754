"""The front's side over real processes, which stand in for the placer."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from supervisor.placer.keeper import Keeper
from supervisor.placer.messages import HostRow, Order
from tests.supervisor.dispatch.fakes import until

PLACER = """
import sys, json
def tell(**fact):
    print(json.dumps(fact), flush=True)
first = json.loads(sys.stdin.readline())
tell(type="JoinWanted")
join = json.loads(sys.stdin.readline())["text"]
tell(type="Placed", hosts=[{"slot": 0, "node": join}], trouble="")
for line in sys.stdin:
    n = json.loads(line)["n_hosts"]
    tell(type="Placed", hosts=[{"slot": no, "node": join} for no in range(n)], trouble="")
"""
REFUSES = """
import json
print(json.dumps({"type": "Refusal", "message": "no token"}), flush=True)
raise SystemExit(5)
"""


@asynccontextmanager
async def keeper(tmp_path: Path, script: str) -> AsyncIterator[Keeper]:
    made = Keeper(
        "auto",
        "cell",
        Order(1),
        lambda: "an invitation",
        tmp_path / "placer.log",
        command=(sys.executable, "-c", script),
        first_wait_s=0.01,
    )
    made.start()
    try:
        yield made
    finally:
        await made.stop()
        assert made.pid is None


async def test_it_hears_what_runs_and_gives_invitations(tmp_path: Path) -> None:
    async with keeper(tmp_path, PLACER) as kept:
        await until(lambda: kept.placed.hosts)
        assert kept.placed.hosts == (HostRow(0, "an invitation"),)
        kept.want(3, {})
        await until(lambda: len(kept.placed.hosts) == 3)


async def test_a_placer_that_dies_is_started_again(tmp_path: Path) -> None:
    async with keeper(tmp_path, PLACER) as kept:
        await until(lambda: kept.placed.hosts)
        pid = kept.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: kept.n_starts == 2 and kept.pid not in {None, pid})


async def test_a_refusal_is_final(tmp_path: Path) -> None:
    async with keeper(tmp_path, REFUSES) as kept:
        await until(lambda: kept.refusal)
        await asyncio.sleep(0)
        assert (kept.refusal, kept.n_starts) == ("no token", 1)


async def test_garbage_ends_nothing(tmp_path: Path) -> None:
    async with keeper(tmp_path, "print('garbage', flush=True)\n" + PLACER) as kept:
        await until(lambda: kept.placed.hosts)
        assert kept.n_starts == 1
