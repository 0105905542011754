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

LOSES_RAY = """
import json, os, sys
def tell(hosts, trouble):
    print(json.dumps({"type": "Placed", "hosts": hosts, "trouble": trouble}), flush=True)
sys.stdin.readline()
if not os.path.exists(sys.argv[1]):
    open(sys.argv[1], "w").close()
    tell([{"slot": 0, "node": "n"}], "no node has room")
    sys.exit(1)
tell([], "Ray cannot be reached")
sys.stdin.readline()
tell([], "")
sys.stdin.read()
"""


@asynccontextmanager
async def keeper(tmp_path: Path, script: str, *arguments: str) -> AsyncIterator[Keeper]:
    made = Keeper(
        "auto",
        "cell",
        Order(1),
        lambda: "an invitation",
        tmp_path / "placer.log",
        command=(sys.executable, "-c", script, *arguments),
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


async def test_hosts_are_known_until_a_placer_that_reaches_ray_tells_others(
    tmp_path: Path,
) -> None:
    async with keeper(tmp_path, LOSES_RAY, str(tmp_path / "has run")) as kept:
        facts: list[tuple[int, int, str, bool]] = []
        kept.on_fact = lambda: facts.append(
            (kept.n_starts, len(kept.placed.hosts), kept.placed.trouble, kept.has_found)
        )
        await until(lambda: len(facts) == 2)
        assert facts[0] == (1, 1, "no node has room", True)
        assert facts[1] == (2, 1, "Ray cannot be reached", False)
        kept.want(0, {})
        await until(lambda: len(facts) == 3)
        assert facts[2] == (2, 0, "", True)


async def test_a_placer_that_is_started_again_has_found_nothing_yet(tmp_path: Path) -> None:
    (tmp_path / "has run").touch()
    async with keeper(tmp_path, LOSES_RAY, str(tmp_path / "has run")) as kept:
        await until(lambda: kept.placed.trouble)
        pid = kept.pid
        assert pid is not None
        kept.want(0, {})
        await until(lambda: kept.has_found)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: kept.n_starts == 2 and kept.placed.trouble)
        assert not kept.has_found


async def test_a_refusal_is_final(tmp_path: Path) -> None:
    async with keeper(tmp_path, REFUSES) as kept:
        await until(lambda: kept.refusal)
        await asyncio.sleep(0)
        assert (kept.refusal, kept.n_starts) == ("no token", 1)


async def test_garbage_ends_nothing(tmp_path: Path) -> None:
    async with keeper(tmp_path, "print('garbage', flush=True)\n" + PLACER) as kept:
        await until(lambda: kept.placed.hosts)
        assert kept.n_starts == 1
