"""Lanes: how a run is split, and what becomes of its parts."""

import asyncio
import os
from pathlib import Path

import psutil
import pytest
from msgspec import field

from tests.chaos import lanes
from tests.service import lives, wait_for


class Sum(lanes.Tally):
    """The pids of lanes, one for each unit of a share."""

    pids: list[int] = field(default_factory=list)


async def _pids(share: lanes.Share) -> Sum:
    return Sum(["bad"], [os.getpid()] * share.n)


async def _fails(_: lanes.Share) -> Sum:
    raise ValueError("this part cannot be played")


async def _stays(file: Path) -> None:
    try:
        file.with_suffix(".begun").write_text(str(os.getpid()))
        await asyncio.Event().wait()
    finally:
        file.with_suffix(".ended").touch()


def test_shares_differ_by_one_at_most_and_the_first_has_the_seed() -> None:
    found = lanes.shares(11, 7, 4)
    assert [share.n for share in found] == [3, 3, 3, 2]
    assert found[0].seed == 7
    assert len({share.seed for share in found}) == 4
    assert lanes.shares(11, 7, 4) == found


@pytest.mark.parametrize("n_lanes", [1, 8])
def test_no_share_is_empty(n_lanes: int) -> None:
    assert [share.n for share in lanes.shares(1, 7, n_lanes)] == [1]


def test_lanes_of_engines_have_processors_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(9)))
    assert lanes.apart(8, cores=2) == [{0, 1}, {2, 3}, {4, 5}, {6, 7}]
    assert lanes.apart(2, cores=2) == [{0, 1, 2, 3}, {4, 5, 6, 7}]
    assert lanes.apart(8, cores=10) == [set(range(9))]


async def test_each_lane_is_a_process_and_the_tallies_add_up() -> None:
    found = await lanes.total(_pids, lanes.shares(5, 0, 2), lanes.together(2))
    assert len(found.pids) == 5
    assert len({*found.pids, os.getpid()}) == 3
    assert found.wrong == ["lane 0: bad", "lane 1: bad"]


async def test_one_lane_is_this_process() -> None:
    found = await lanes.total(_pids, lanes.shares(2, 0, 1), lanes.together(1))
    assert (found.pids, found.wrong) == ([os.getpid()] * 2, ["bad"])


async def test_a_part_that_raises_fails_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await lanes.total(_fails, lanes.shares(2, 0, 2), lanes.together(2))
    assert raised.group_contains(lanes.LaneFailed)
    assert "this part cannot be played" in capfd.readouterr().err


async def test_parts_of_a_cancelled_run_end_in_good_order(tmp_path: Path) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    run = asyncio.create_task(lanes.play(_stays, files, lanes.together(2)))
    begun = [file.with_suffix(".begun") for file in files]
    await asyncio.to_thread(wait_for, lambda: all(f.exists() and f.read_text() for f in begun))
    pids = [psutil.Process(int(file.read_text())) for file in begun]
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert all(file.with_suffix(".ended").exists() for file in files)
    assert not any(map(lives, pids))
