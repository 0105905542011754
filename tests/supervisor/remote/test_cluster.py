"""A front's cluster: its book, and the take-over of its address."""

import asyncio
from pathlib import Path
from typing import cast

from gpufc.config import ClusterConfig
from supervisor.cluster import keys
from supervisor.cluster.book import HostBook
from supervisor.fleet.fleet import Fleet
from supervisor.remote.cluster import Cluster
from tests.supervisor.cluster.hosts import hello


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
