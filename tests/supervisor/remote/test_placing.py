"""A front has a cluster run its hosts. Real processes stand in for the placer."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest

from gpufc.config import ClusterConfig
from gpufc.errors import ConfigError
from supervisor.cli.preflight import check_cluster
from supervisor.cli.service_unit import STOP_MARGIN_S
from supervisor.cluster.join import JoinFile
from supervisor.placer.keeper import ENDS_S, Keeper
from supervisor.remote.cluster import TAKE_OVER_S, Cluster
from supervisor.remote.hosts import Wish
from supervisor.remote.placing import STOP_S, Placing, resources
from tests.supervisor.dispatch.fakes import until

PLACER = """
import json, sys
def tell(**fact):
    print(json.dumps(fact), flush=True)
order = json.loads(sys.stdin.readline())
tell(type="JoinWanted")
join = json.loads(sys.stdin.readline())["text"]
open(sys.argv[1], "w").write(json.dumps([order, join, sys.argv[2:]]))
tell(type="Placed", hosts=[{"slot": 0, "node": "n"}], trouble="no node has room")
for line in sys.stdin:
    n = json.loads(line)["n_hosts"]
    tell(type="Placed", hosts=[{"slot": 0, "node": "n"}] * n, trouble="")
"""
FINDS_LATE = """
import json, sys, time
def tell(**fact):
    print(json.dumps(fact), flush=True)
sys.stdin.readline()
if "reach" in sys.argv[1]:
    tell(type="Placed", hosts=[], trouble="Ray cannot be reached")
    time.sleep(60)
time.sleep(0.3)
tell(type="Placed", hosts=[{"slot": 0, "node": "n"}], trouble="")
for line in sys.stdin:
    assert json.loads(line)["n_hosts"] == 0
    tell(type="Placed", hosts=[], trouble="")
    open(sys.argv[1], "w").write("ended")
"""
ENDS_NONE = """
import json, sys
sys.stdin.readline()
sys.stdin.readline()
print(json.dumps({"type": "Placed", "hosts": [{"slot": 0, "node": "n"}]}), flush=True)
sys.stdin.read()
"""
FOR_EVER_S = 1e6
REFUSES = 'print(\'{"type": "Refusal", "message": "set a token"}\', flush=True)'


@pytest.fixture
def config(tmp_path: Path) -> ClusterConfig:
    return ClusterConfig(
        cluster_listen="127.0.0.1:0",
        cluster_dir=str(tmp_path / "cluster"),
        cluster="ray://10.0.0.1:6379",
        cluster_hosts=2,
        cluster_resources="CPU=4,GPU=0.5",
    )


@asynccontextmanager
async def placing(
    config: ClusterConfig, folder: Path, script: str
) -> AsyncIterator[tuple[Placing, Cluster]]:
    cluster = Cluster(config)
    command = (sys.executable, "-c", script, str(folder / "told"))
    made = Placing(config, cluster, folder / "placer.log", partial(Keeper, command=command))
    made.start()
    try:
        yield made, cluster
    finally:
        await made.leave()
        await cluster.stop()


def passes(seconds: float) -> None:
    """Let time pass for the timers that the loop has by now."""
    loop = asyncio.get_running_loop()
    clock = loop.time
    loop.time = lambda: clock() + seconds  # type: ignore[method-assign]


async def test_the_placer_gets_the_order_and_an_invitation(
    config: ClusterConfig, tmp_path: Path
) -> None:
    async with placing(config, tmp_path, PLACER) as (made, cluster):
        await made.checked()
        await until(lambda: cluster.machines.hosts.trouble)
        order, join, arguments = json.loads((tmp_path / "told").read_text())
        assert order["n_hosts"] == 2
        assert order["resources"] == {"CPU": 4.0, "GPU": 0.5}
        assert msgspec.json.decode(join, type=JoinFile).front_key == cluster.front_key
        assert arguments == ["10.0.0.1:6379", f"--cell={cluster.front_key[:16]}"]
        awaited = cluster.machines.hosts.awaited(Wish(1, "m"), 0.0)
        assert awaited == "waiting for a machine: Ray: no node has room"
        await made.stop()  # returns when the cluster has ended the hosts
        assert not made.hosts


async def test_a_front_that_stops_at_once_ends_the_hosts_that_it_has_not_found_yet(
    config: ClusterConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.remote.placing.STOP_S", FOR_EVER_S)
    async with placing(config, tmp_path, FINDS_LATE) as (made, _):
        await until(lambda: made._keeper.pid)
        await made.stop()
        await until(lambda: (tmp_path / "told").exists())


async def test_a_front_that_stops_does_not_wait_for_a_ray_that_cannot_be_reached(
    config: ClusterConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.remote.placing.STOP_S", FOR_EVER_S)
    (tmp_path / "reach").mkdir()
    async with placing(config, tmp_path / "reach", FINDS_LATE) as (made, _):
        async with asyncio.timeout(60):
            await made.stop()


async def test_a_front_that_stops_waits_for_its_hosts_once(
    config: ClusterConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("supervisor.remote.placing.STOP_S", FOR_EVER_S)
    async with placing(config, tmp_path, ENDS_NONE) as (made, _):
        await until(lambda: made._keeper.pid)
        stopping = asyncio.create_task(made.stop())
        await asyncio.sleep(0)
        passes(0.6 * FOR_EVER_S)
        await until(lambda: made.hosts)
        passes(0.6 * FOR_EVER_S)
        async with asyncio.timeout(60):
            await stopping
    assert "hosts_left_behind n=1" in caplog.text


def test_a_service_is_not_killed_while_it_waits_for_its_hosts() -> None:
    assert TAKE_OVER_S + STOP_S + ENDS_S < STOP_MARGIN_S


async def test_a_front_that_never_placed_hosts_ends_none(
    config: ClusterConfig, tmp_path: Path
) -> None:
    cluster = Cluster(config)
    made = Placing(config, cluster, tmp_path / "placer.log")
    await made.stop()
    await cluster.stop()
    assert not (tmp_path / "placer.log").exists()


async def test_a_refusal_is_an_error_of_the_start(config: ClusterConfig, tmp_path: Path) -> None:
    async with placing(config, tmp_path, REFUSES) as (made, _):
        with pytest.raises(ConfigError, match="set a token"):
            await made.checked()


@pytest.mark.parametrize(
    ("listen", "remedy"), [(None, "set cluster_listen"), ("0.0.0.0:1", "set cluster_advertise")]
)
def test_a_cluster_whose_hosts_could_not_reach_the_front_is_refused(
    listen: str | None, remedy: str
) -> None:
    with pytest.raises(ConfigError, match=remedy):
        check_cluster(ClusterConfig(cluster="ray://auto", cluster_listen=listen))


def test_resources_have_rays_names() -> None:
    assert resources("") == {}
    assert resources("GPU=1,node:10.0.0.1=0.01") == {"GPU": 1.0, "node:10.0.0.1": 0.01}
