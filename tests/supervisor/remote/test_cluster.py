"""A front's cluster: its book, and the take-over of its address."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from gpufc.config import ClusterConfig, ModelConfig
from gpufc.ids import Epoch, WorkerName
from supervisor.cluster import keys
from supervisor.cluster.book import HostBook
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.worker import WorkerSpec
from supervisor.remote.cluster import Cluster
from tests.supervisor.cluster.hosts import hello
from tests.supervisor.remote.fake_channel import FakeChannel, listening


class NoFleet:
    def workers(self) -> list[object]:
        return []


async def test_a_front_that_takes_over_knows_hosts_that_joined_the_one_before(
    tmp_path: Path,
) -> None:
    config = ClusterConfig(cluster_listen="127.0.0.1:0", cluster_dir=str(tmp_path))
    cluster = Cluster(config)
    of_front_before = HostBook(tmp_path / "hosts.json")
    of_front_before.enter(of_front_before.invite().public, hello(keys.new_pair().public))
    cluster.take_over(cast(Fleet, NoFleet()))
    async with asyncio.timeout(60):
        await next(task for task in asyncio.all_tasks() if task.get_name() == "cluster listen")
    assert [row.machine for row in cluster.rows()] == ["node"]
    cluster.invite(1)
    assert [host.machine for host in HostBook(tmp_path / "hosts.json").hosts] == ["node"]
    await cluster.stop()


@pytest.mark.parametrize("knows_hosts", [True, False])
async def test_a_front_that_starts_again_lets_hosts_bring_workers_first(
    tmp_path: Path, knows_hosts: bool
) -> None:
    """The front before may have been killed: an idle machine must not load what another one has."""
    if knows_hosts:
        of_front_before = HostBook(tmp_path / "hosts.json")
        of_front_before.enter(of_front_before.invite().public, hello(keys.new_pair().public))
    config = ClusterConfig(cluster_listen="127.0.0.1:0", cluster_dir=str(tmp_path))
    cluster = Cluster(config)
    cluster.start(cast(Fleet, NoFleet()), lambda model: None)
    told: list[str] = []
    spec = WorkerSpec(WorkerName("m-0"), "m", ModelConfig(), 4, "info", is_remote=True)
    cluster.edge().place(Epoch(1), spec, listening(told))
    cluster.machines.joined(FakeChannel("idle", cluster.machines))
    async with asyncio.timeout(60):
        while not told:  # noqa: ASYNC110 - the loop is all that it waits for
            await asyncio.sleep(0)
    assert told[0] == ("waiting for its machine to come back" if knows_hosts else "found")
    await cluster.stop()
