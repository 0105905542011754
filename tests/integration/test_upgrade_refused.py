"""Upgrades that fail: before the handover nothing changes, and after it the clients are told."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.integration.commands import NOT_RUNNING, REFUSED, command
from tests.integration.fake_service import ENDLESS, WIDE, complete, fake_text, joined, stream
from tests.integration.upgradable import (
    N_TOKENS,
    QUICK,
    ROOT,
    Running,
    upgradable,
)
from tests.service import lives, service, wait_for


async def test_a_stop_ends_an_upgrade_that_has_not_got_far(tmp_path: Path) -> None:
    slow = "import sys, time\n'supervisor.handover' in sys.orig_argv and time.sleep(60)\n"
    (tmp_path / "sitecustomize.py").write_text(slow)
    path = os.pathsep.join((ROOT, str(tmp_path)))
    with upgradable(tmp_path, PYTHONPATH=path) as running:
        upgrade = asyncio.create_task(running.upgrade())
        children = await asyncio.to_thread(
            wait_for,
            lambda: len(found := running.old.children()) == 2 and found,
            why="the new front starts",
        )
        code, said = await command(running.service, "stop")
        assert code == 0, said
        code, said = await upgrade
        assert code == REFUSED, said
        assert "the front was told to stop" in said
        await running.until_old_is_gone()
        assert not any(map(lives, children))
        assert list(running.service.runtime.path.glob("*.sock")) == []


GOOD = "n_ctx = 2048\n"
BROKEN = """
import sys, os
if 'supervisor.handover' in sys.orig_argv:
    sys.stderr.write('ImportError: it is broken\\n')
    sys.stderr.flush()
    os._exit(1)
"""
"""A broken installation: an import of the new front fails."""


@pytest.fixture(scope="module")
def unmoved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The service of all upgrades that change nothing. Its `sitecustomize.py` lies beside its
    configuration."""
    folder = tmp_path_factory.mktemp("unmoved")
    config = folder / "gpufc.toml"
    config.write_text(GOOD)
    # else the running front would soon apply a changed file by itself
    own = {"PYTHONPATH": os.pathsep.join((ROOT, str(folder))), "GPUFC_RELOAD_ON_CHANGE": "false"}
    environ = QUICK | own
    with service(folder / "run", "--config", str(config), environ=environ) as started:
        yield Running(started, config)


@pytest.mark.parametrize(
    ("config", "custom", "expected"),
    [
        ("n_ctxt = 2048\n", "", "unknown key n_ctxt"),
        ("n_ctx = 4096\n", "", "the configuration has changed n_ctx"),
        (GOOD, BROKEN, "ImportError: it is broken"),
    ],
    ids=["configuration", "model", "crash"],
)
async def test_a_new_front_that_cannot_start_changes_nothing(
    unmoved: Running, config: str, custom: str, expected: str
) -> None:
    started = unmoved.service
    unmoved.config.write_text(config)
    unmoved.config.with_name("sitecustomize.py").write_text(custom)
    async with aiohttp.ClientSession() as session:
        running = asyncio.create_task(
            stream(session, unmoved.url, "meanwhile", max_tokens=N_TOKENS)
        )
        code, said = await unmoved.upgrade()
        assert code == REFUSED, said
        assert expected in said
        assert joined(await running) == fake_text("meanwhile", N_TOKENS)
        status, _, headers = await complete(session, unmoved.url, "still here")
    assert status == 200
    assert headers.get("Connection", "") != "close"
    row = started.worker()
    assert (row["pid"], row["epoch"], row["state"]) == (unmoved.worker.pid, 1, "ready")
    assert len(list(started.runtime.path.glob("w-*.sock"))) == 1
    children = started.front.children(recursive=True)
    assert [child.pid for child in children if child.parent() == started.front] == [row["pid"]]


async def test_with_the_new_front_the_workers_end_and_the_old_one_says_so(tmp_path: Path) -> None:
    with upgradable(tmp_path, **WIDE) as running:
        await new_front_is_killed(running)


async def new_front_is_killed(running: Running) -> None:
    async with aiohttp.ClientSession() as session:
        open_stream = asyncio.create_task(stream(session, running.url, "long", max_tokens=ENDLESS))
        upgrade = asyncio.create_task(running.upgrade())
        await asyncio.to_thread(
            wait_for, lambda: running.service.status()["front"]["pid"] != running.old.pid
        )
        running.front().kill()
        await asyncio.to_thread(wait_for, lambda: not lives(running.worker), why="it has ended")
        events = await open_stream
        assert '"engine_unavailable"' in events[-2] or '"engine_crashed"' in events[-2], events[-2]
        await upgrade  # it is 0 or 4: the new front may have served for a moment
    await asyncio.to_thread(running.service.process.wait, 60)


async def test_a_front_that_dies_before_the_new_one_serves_is_not_upgraded(tmp_path: Path) -> None:
    # the new front does not begin before the old one has died
    begun = tmp_path / "begun"
    late = (
        "import os, sys, time\n"
        "if 'supervisor.handover' in sys.orig_argv:\n"
        "    parent = os.getppid()\n"
        f"    open({str(begun)!r}, 'w').close()\n"
        "    while os.getppid() == parent:\n"
        "        time.sleep(0.01)\n"
    )
    (tmp_path / "sitecustomize.py").write_text(late)
    path = os.pathsep.join((ROOT, str(tmp_path)))
    with upgradable(tmp_path, PYTHONPATH=path) as running:
        upgrade = asyncio.create_task(running.upgrade())
        await asyncio.to_thread(wait_for, begun.exists)
        running.old.kill()
        await asyncio.to_thread(running.service.process.wait, 60)
        code, said = await upgrade
    assert code == NOT_RUNNING
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert "ended during the upgrade, and no new one serves" in line
    assert "upgraded" not in said.replace("upgrading", "")
