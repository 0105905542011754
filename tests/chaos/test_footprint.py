"""A count that grew for a moment is no leftover; one that stays is."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from supervisor.runtime_dir import RuntimeDir
from tests.chaos import footprint
from tests.chaos.footprint import Footprint, at_rest, growth
from tests.service import wait_for, zombies

PARENT = """
import os, sys
for line in sys.stdin:
    if line.strip() == "bear":
        child = os.fork()
        if not child:
            os._exit(0)
    elif line.strip() == "reap":
        os.waitpid(child, 0)
    else:
        held = os.open(os.devnull, os.O_RDONLY)
    print("done", flush=True)
"""


class Parent:
    """A process in place of a front, which bears and reaps a child as it is told."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", PARENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.front = psutil.Process(self.process.pid)
        self.runtime = RuntimeDir.find(str(folder))

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def leave_a_zombie(self) -> None:
        self.tell("bear")
        wait_for(lambda: zombies(self.front), why="the child has died")


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    made = Parent(tmp_path)
    try:
        made.tell("open")
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts have no time to fall."""
    monkeypatch.setattr(footprint, "SETTLE_S", 0.0)


async def test_a_zombie_that_is_reaped_late_is_no_leftover(
    parent: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await at_rest(parent)
    parent.leave_a_zombie()
    seen: list[int] = []

    class Looking(Footprint):
        """Has the child reaped once it has been seen dead."""

        def __init__(self, running: footprint.Watched) -> None:
            super().__init__(running)
            seen.append(self.zombies)
            if len(seen) == 1:
                parent.tell("reap")

    monkeypatch.setattr(footprint, "Footprint", Looking)
    after, grown = await growth(parent, before, spare_descriptors=0)
    assert (seen[0], after.zombies, grown) == (1, 0, [])


async def test_a_first_look_waits_until_nothing_more_is_opened(
    parent: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_looks = 0

    class Looking(Footprint):
        """Has a descriptor opened after each of the first looks."""

        def __init__(self, running: footprint.Watched) -> None:
            nonlocal n_looks
            super().__init__(running)
            n_looks += 1
            if n_looks < 4:
                parent.tell("open")

    monkeypatch.setattr(footprint, "Footprint", Looking)
    before = await at_rest(parent, still_s=0.1)
    assert before.descriptors == parent.front.num_fds()


@pytest.mark.usefixtures("briefly")
async def test_what_stays_is_a_leftover(parent: Parent) -> None:
    before = await at_rest(parent)
    parent.leave_a_zombie()
    parent.tell("open")
    (parent.runtime.path / "w-00000000.sock").touch()
    _, grown = await growth(
        parent, before, 0, ("zombies", "sockets", "files"), spare_bytes=-(1 << 30)
    )
    assert grown[:4] == [
        "descriptors: 4 -> 5",
        "zombies: 0 -> 1",
        "sockets: 0 -> 1",
        "files: 0 -> 1",
    ]
    assert [line.split(":")[0] for line in grown[4:]] == ["memory"]


@pytest.mark.usefixtures("briefly")
async def test_spare_descriptors_are_left_to_connections(parent: Parent) -> None:
    before = await at_rest(parent)
    parent.tell("open")
    _, grown = await growth(parent, before, spare_descriptors=1)
    assert grown == []


@pytest.mark.usefixtures("briefly")
async def test_a_footprint_to_compare_with_holds_no_zombie(parent: Parent) -> None:
    parent.leave_a_zombie()
    with pytest.raises(AssertionError, match="zombies=1"):
        await at_rest(parent)
