"""Reloading: all of it or nothing, and nothing is forgotten."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gpufc import settings
from gpufc.config.live import own
from gpufc.errors import InvalidConfiguration, ReloadRefused, SwapRefused
from gpufc.settings import Settings, Stamp, stamp_of
from supervisor import reload
from supervisor.fleet.port import OnReplacement, not_followed
from supervisor.reload import Origins, Reloader
from tests.supervisor.dispatch.fakes import until


class FakeFleet:
    """Records what it is asked to serve."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, Any], int, bool]] = []
        self.refuses = False

    async def reconfigure(
        self,
        models: Mapping[str, Mapping[str, Any]],
        n_sequences: int,
        *,
        needs_workers: bool,
        tell: OnReplacement = not_followed,
    ) -> None:
        self.asked.append((dict(models), n_sequences, needs_workers))
        if self.refuses:
            raise SwapRefused("it does not load; the model before goes on serving")


class Rig:
    """A configuration file and what reloads it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.fleet = FakeFleet()
        self.n_applied = self.n_read = 0
        file.write_text("")
        first = self.read()
        self.config = own(first.config)
        origins = Origins(read=self.read, file=file, stamp=first.stamp)
        self.reloader = Reloader(self.config, first.values, origins, self.fleet, self.applied)

    def read(self) -> Settings:
        self.n_read += 1
        return settings.resolve(flags={"port": "0"}, environ={}, file=self.file)

    def applied(self) -> None:
        self.n_applied += 1

    def in_force(self) -> tuple[int | None, int, int]:
        return (
            self.config.admission.max_queue,
            self.config.limits.max_n,
            self.config.models["default"].n_ctx,
        )


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "gpufc.toml")


async def test_hot_keys_are_in_force_at_once_and_need_no_worker(rig: Rig) -> None:
    rig.file.write_text("max_queue = 9\nmax_n = 2")
    found = await rig.reloader.reload()
    assert [change.key.name for change in found] == ["max_queue", "max_n"]
    assert rig.in_force() == (9, 2, 4096)
    assert rig.fleet.asked == [({}, 10, False)]
    assert rig.n_applied == 1
    assert await rig.reloader.reload() == ()
    assert rig.n_applied == 1


async def test_a_key_of_the_worker_is_served_before_anything_else_is_applied(rig: Rig) -> None:
    rig.file.write_text("n_ctx = 512\nmax_n = 2")
    await rig.reloader.reload()
    assert rig.fleet.asked == [({"default": {"n_ctx": 512}}, 10, True)]
    assert rig.in_force() == (None, 2, 512)


@pytest.mark.parametrize(("at_once", "needs_workers"), [(4, False), (20, True)])
async def test_only_more_sequences_at_once_need_other_workers(
    rig: Rig, at_once: int, needs_workers: bool
) -> None:
    rig.file.write_text(f"max_concurrent_requests = {at_once}")
    await rig.reloader.reload()
    assert rig.fleet.asked == [({}, at_once, needs_workers)]
    assert rig.config.admission.max_concurrent_requests == at_once


async def test_one_bad_key_changes_nothing_and_is_named(rig: Rig) -> None:
    rig.file.write_text("max_queue = 9\nmax_n = 'many'")
    with pytest.raises(InvalidConfiguration, match=r"^Nothing was changed: bad value 'many'"):
        await rig.reloader.reload()
    assert rig.in_force() == (None, 8, 4096)
    assert rig.fleet.asked == []


async def test_a_file_that_has_become_a_pipe_is_refused_and_holds_up_no_other_reload(
    rig: Rig,
) -> None:
    rig.file.unlink()
    os.mkfifo(rig.file)  # without a writer, to open it would block
    with pytest.raises(InvalidConfiguration, match="is not a regular file"):
        await rig.reloader.reload()
    rig.file.unlink()
    rig.file.write_text("max_n = 2")
    assert len(await rig.reloader.reload()) == 1


async def test_a_key_that_is_not_hot_refuses_the_others_too(rig: Rig) -> None:
    rig.file.write_text("max_queue = 9\nrestart_limit = 3")
    with pytest.raises(ReloadRefused, match=r"restart_limit cannot change .* Wanted: .*max_queue"):
        await rig.reloader.reload()
    assert rig.in_force() == (None, 8, 4096)


async def test_a_worker_that_is_refused_leaves_all_as_it_was(rig: Rig) -> None:
    rig.fleet.refuses = True
    rig.file.write_text("n_ctx = 512\nmax_n = 2")
    with pytest.raises(SwapRefused):
        await rig.reloader.reload()
    assert rig.in_force() == (None, 8, 4096)
    rig.fleet.refuses = False
    assert len(await rig.reloader.reload()) == 2


async def test_a_trial_shows_the_changes_and_applies_none(rig: Rig) -> None:
    rig.file.write_text("max_n = 2")
    (change,) = await rig.reloader.reload(is_trial=True)
    assert change.key.name == "max_n"
    assert rig.in_force() == (None, 8, 4096)


async def test_a_front_without_origins_refuses(rig: Rig) -> None:
    lone = Reloader(rig.config, (), None, rig.fleet, rig.applied)
    with pytest.raises(ReloadRefused):
        await lone.reload()
    await asyncio.wait_for(lone.watch(), 60)  # there is no file to look at


async def test_a_changed_file_is_read_once_it_rests(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload, "LOOK_S", 0.01)
    watching = asyncio.create_task(rig.reloader.watch())
    try:
        fresh = rig.file.with_name("fresh")
        fresh.write_text("max_n = 'many'")
        os.replace(fresh, rig.file)  # a faulty one is passed over
        fresh.write_text("max_n = 2")
        os.replace(fresh, rig.file)
        await until(lambda: rig.config.limits.max_n == 2)
    finally:
        watching.cancel()


@pytest.mark.parametrize("way", ["in place", "by another file"])
async def test_a_file_that_changed_before_the_watch_began_is_read(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A front reads its file, then imports and looks at models; only then it watches."""
    monkeypatch.setattr(reload, "LOOK_S", 0.01)
    fresh = rig.file if way == "in place" else rig.file.with_name("fresh")
    fresh.write_text("max_n = 2")
    os.replace(fresh, rig.file)
    watching = asyncio.create_task(rig.reloader.watch())
    try:
        await until(lambda: rig.config.limits.max_n == 2)
    finally:
        watching.cancel()
    assert rig.n_applied == 1


async def test_a_file_that_stays_as_it_was_read_is_left_alone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def counted(file: Path) -> Stamp | None:
        nonlocal looks
        looks += 1
        return stamp_of(file)

    monkeypatch.setattr(reload, "LOOK_S", 0.01)
    monkeypatch.setattr(reload, "stamp_of", counted)
    n_read = rig.n_read
    watching = asyncio.create_task(rig.reloader.watch())
    try:
        await until(lambda: looks > 3)
    finally:
        watching.cancel()
    assert rig.n_read == n_read
