"""A front whose hosts run in a real Ray cluster: actor, placer and raylet are killed, and every
stream goes on. Needs Ray; `test_ray.py` has the placer alone.
"""

import asyncio
import importlib.util
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import aiohttp
import psutil
import pytest

from supervisor.placer.plan import SHUN_S
from tests.fakes.ray_cluster import OPEN, SETTINGS
from tests.integration.fake_service import fake_text, joined, stream
from tests.integration.test_ray import ray_cluster
from tests.machines import Cluster
from tests.ports import free_port
from tests.service import COMMAND, clean_environment, lives, service, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is missing (pip install 'gpufc[ray]')"
    ),
]

N_STREAMS = 8
N_TOKENS = 200
WAIT_S = 120.0


def raylet_of(worker: int) -> psutil.Process:
    """The raylet of a worker's node."""
    return next(one for one in psutil.Process(worker).parents() if one.name() == "raylet")


def configured(
    folder: Path, address: str, n_hosts: int, listen: str, more: str = "", step_ms: int = 5
) -> Path:
    config = folder / "config.toml"
    config.write_text(
        f'cluster_listen = "{listen}"\n'
        f'cluster_dir = "{folder / "cluster"}"\n'
        f'cluster = "ray://{address}"\n'
        f"cluster_hosts = {n_hosts}\n"
        'cluster_resources = "CPU=1"\n'
        f"shutdown_timeout_s = 1.0\n{more}\n"
        '[models.fake]\nspread = "machines"\nbackend = "fake"\n'
        f'replicas = {n_hosts}\nfake_script = "step_ms={step_ms}"\n'
    )
    return config


@contextmanager
def front_on(
    folder: Path,
    address: str,
    n_hosts: int = 2,
    *,
    is_insecure: bool = False,
    step_ms: int = 5,
) -> Iterator[Cluster]:
    listen = f"127.0.0.1:{free_port()}"
    more = "insecure_ray = true" if is_insecure else ""
    config = configured(folder, address, n_hosts, listen, more, step_ms)
    environ = OPEN if is_insecure else SETTINGS
    started = service(folder / "run", "--config", str(config), environ=environ, ready=False)
    with started as front:
        yield Cluster(front, folder, listen)


def two_ready(running: Cluster) -> dict[str, int] | None:
    """Machine → pid of its ready worker, once there are two."""
    ready = running.ready() if running.front.runtime.control_socket.exists() else {}
    return ready if len(ready) == 2 else None


def placer_of(running: Cluster) -> psutil.Process | None:
    return placer_under(running.front.front)


def placer_under(front: psutil.Process) -> psutil.Process | None:
    for child in front.children():
        if "supervisor.placer" in child.cmdline():
            return child
    return None


async def strike(
    running: Cluster, kill: Callable[[], Awaitable[None]], n_tokens: int = N_TOKENS
) -> list[str]:
    """Let streams run on both machines, `kill` in the middle, and return the texts."""
    async with aiohttp.ClientSession() as session:
        url = running.front.url
        streams = [
            asyncio.create_task(stream(session, url, f"prompt {n}", max_tokens=n_tokens))
            for n in range(N_STREAMS)
        ]

        def both_compute() -> bool:
            return sum(row["sequences_running"] > 0 for row in running.workers()) == 2

        await asyncio.to_thread(wait_for, both_compute, WAIT_S, "both compute")
        await kill()
        return [joined(await one) for one in streams]


def killed(victim: psutil.Process) -> Callable[[], Awaitable[None]]:
    return partial(asyncio.to_thread, victim.kill)


async def test_streams_go_on_through_every_death_in_a_ray_cluster(tmp_path: Path) -> None:
    expected = [fake_text(f"prompt {n}", N_TOKENS) for n in range(N_STREAMS)]
    (tmp_path / "gcs").mkdir()
    async with ray_cluster(5, str(tmp_path / "gcs")) as ray:
        with front_on(tmp_path, ray.address) as running:

            async def ready() -> dict[str, int]:
                return await asyncio.to_thread(
                    wait_for, lambda: two_ready(running) or {}, WAIT_S, "two workers are ready"
                )

            # the placer dies: nothing else does, and the next one finds the hosts
            workers, placer = await ready(), placer_of(running)
            assert placer is not None
            assert await strike(running, killed(placer)) == expected
            again = await asyncio.to_thread(
                wait_for, lambda: placer_of(running), WAIT_S, "a placer"
            )
            assert again.pid != placer.pid
            assert await ready() == workers

            # an actor dies, and its host and worker with it; Ray runs another one
            actor = psutil.Process(next(iter(workers.values()))).parents()[1]
            assert await strike(running, killed(actor)) == expected
            workers_then = await ready()
            assert len(set(workers_then.values()) & set(workers.values())) == 1

            # a node's raylet dies, and Ray ends its actor
            worker = next(iter(workers_then.values()))
            actor, raylet = psutil.Process(worker).parents()[1], raylet_of(worker)
            assert await strike(running, lambda: ray.tell(f"kill raylet {raylet.pid}")) == expected
            await asyncio.to_thread(wait_for, lambda: not lives(actor), WAIT_S, "its actor ends")
            left = await ready()

            # the head dies and comes back: the same workers go on
            assert await strike(running, lambda: ray.tell("kill head")) == expected
            assert await ready() == left
            await ray.tell("start head")

            # all processes of a node die: another node gets its host, by the head that is back
            raylet = raylet_of(next(iter(left.values())))
            assert await strike(running, lambda: ray.tell(f"kill machine {raylet.pid}")) == expected
            left = await ready()
            hosts = [psutil.Process(pid).parents()[0] for pid in left.values()]
            assert running.front.status()["front"]["condition"]["status"] == "ok"

            # a front that stops leaves no host behind
            running.front.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(running.front.process.wait, 60) == 0
            await asyncio.to_thread(
                wait_for, lambda: not any(map(lives, hosts)), WAIT_S, "the hosts end"
            )


async def test_a_cluster_without_token_and_storage_is_refused_at_the_start(tmp_path: Path) -> None:
    async with ray_cluster(0) as ray:
        config = configured(tmp_path, ray.address, 2, f"127.0.0.1:{free_port()}")
        ended = await asyncio.to_thread(
            subprocess.run,
            [*COMMAND, "start", "--port=0", f"--runtime-dir={tmp_path}/run", f"--config={config}"],
            env=clean_environment() | OPEN,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
    assert ended.returncode == 2, ended.stderr
    error = next(line for line in ended.stderr.splitlines() if line.startswith("error:"))
    for remedy in ("RAY_AUTH_MODE=token", "RAY_gcs_storage=rocksdb", "--insecure-ray"):
        assert remedy in error


async def test_a_head_that_has_forgotten_all_ends_its_nodes_and_streams_go_on_on_new_ones(
    tmp_path: Path,
) -> None:
    """Without durable storage: the nodes end, an operator starts them again, the placer follows."""
    n_tokens = 3000
    async with ray_cluster(2) as ray:
        with front_on(tmp_path, ray.address, is_insecure=True, step_ms=20) as running:
            before = await asyncio.to_thread(
                wait_for, lambda: two_ready(running) or {}, WAIT_S, "two workers are ready"
            )
            placer = placer_of(running)

            async def forget() -> None:
                await ray.tell("kill head")
                await ray.tell("start head")
                await asyncio.to_thread(
                    wait_for, lambda: not running.ready(), WAIT_S, "the nodes end"
                )
                for _ in before:
                    await ray.tell("add node")

            expected = [fake_text(f"prompt {n}", n_tokens) for n in range(N_STREAMS)]
            assert await strike(running, forget, n_tokens) == expected
            after = await asyncio.to_thread(
                wait_for, lambda: two_ready(running) or {}, WAIT_S, "two workers are ready"
            )
            assert not set(before.values()) & set(after.values())
            assert placer_of(running) != placer


async def test_an_upgrade_hands_the_hosts_to_the_new_fronts_placer(tmp_path: Path) -> None:
    (tmp_path / "gcs").mkdir()
    async with ray_cluster(2, str(tmp_path / "gcs")) as ray:
        with front_on(tmp_path, ray.address) as running:

            async def ready() -> dict[str, int]:
                return await asyncio.to_thread(
                    wait_for, lambda: two_ready(running) or {}, WAIT_S, "two workers are ready"
                )

            hosts = [psutil.Process(pid).parents()[0] for pid in (await ready()).values()]
            placer = placer_of(running)
            assert placer is not None

            async def upgrade() -> None:
                await asyncio.to_thread(list, running.front.control.upgrade())

            expected = [fake_text(f"prompt {n}", N_TOKENS) for n in range(N_STREAMS)]
            assert await strike(running, upgrade) == expected
            await asyncio.to_thread(wait_for, lambda: not lives(placer), WAIT_S, "its placer ends")
            await ready()
            assert all(map(lives, hosts))
            new = psutil.Process(running.front.status()["front"]["pid"])
            try:
                await asyncio.to_thread(wait_for, lambda: placer_under(new), WAIT_S, "its placer")
            finally:
                new.terminate()
            await asyncio.to_thread(wait_for, lambda: not lives(new), WAIT_S, "it ends")


async def test_a_host_that_crashes_on_the_only_node_comes_back_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "gcs").mkdir()
    async with ray_cluster(1, str(tmp_path / "gcs")) as ray:
        with front_on(tmp_path, ray.address, n_hosts=1) as running:

            def ready() -> dict[str, int]:
                has_front = running.front.runtime.control_socket.exists()
                return running.ready() if has_front else {}

            before = await asyncio.to_thread(wait_for, ready, WAIT_S, "a worker is ready")
            (machine, worker), began = *before.items(), time.monotonic()
            psutil.Process(worker).parents()[1].kill()

            def anew() -> bool:
                return set(running.ready()) == {machine} and running.ready() != before

            await asyncio.to_thread(wait_for, anew, WAIT_S, "it is back")
            assert time.monotonic() - began < SHUN_S
            assert list(running.rows()) == [machine]
            assert running.rows()[machine]["n_losses"] == 1


async def test_a_front_that_is_stopped_right_after_an_upgrade_leaves_no_host(
    tmp_path: Path,
) -> None:
    (tmp_path / "gcs").mkdir()
    async with ray_cluster(2, str(tmp_path / "gcs")) as ray:
        with front_on(tmp_path, ray.address) as running:
            workers = await asyncio.to_thread(
                wait_for, lambda: two_ready(running) or {}, WAIT_S, "two workers are ready"
            )
            hosts = [psutil.Process(pid).parents()[0] for pid in workers.values()]
            await asyncio.to_thread(list, running.front.control.upgrade())
            new = psutil.Process(running.front.status()["front"]["pid"])
            new.terminate()
            await asyncio.to_thread(wait_for, lambda: not lives(new), WAIT_S, "it ends")
            await asyncio.to_thread(wait_for, lambda: not any(map(lives, hosts)), 5.0, "hosts end")
