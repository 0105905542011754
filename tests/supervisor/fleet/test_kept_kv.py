"""The KV of models that are not in memory: written at the unload, read before the first request."""

import os

import pytest

from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.kept_kv import KeptKv
from supervisor.fleet.place import PlaceState
from tests.supervisor.fleet.scripted import KILLED, Bench, Script

PLENTY = 1 << 40
N_BYTES = 3
"""What a scripted worker says that it has written."""


async def kept_of(*paths: str, limit_bytes: int = PLENTY, free_bytes: int = PLENTY) -> KeptKv:
    """What is kept after models of these paths were loaded and unloaded, in this order."""
    kept = KeptKv(limit_bytes, lambda: free_bytes)
    for path in paths:
        bench = Bench(kept=kept, model_path=path)
        bench.edge.scripts[path] = Script(fingerprint=path)
        await bench.start()
        await bench.place.unload(Reason.UNLOADED)
        await bench.close()
    return kept


def memory_files() -> int:
    folder = f"/proc/{os.getpid()}/fd"
    links = [os.path.join(folder, name) for name in os.listdir(folder)]
    return sum("memfd:gpufc-kv" in os.readlink(link) for link in links if os.path.islink(link))


async def test_the_next_worker_reads_it_before_it_is_announced() -> None:
    kept = KeptKv(PLENTY)
    bench = Bench(kept=kept)
    told: list[list[str]] = []
    heard = bench.listener.worker_ready
    bench.listener.worker_ready = (  # type: ignore[method-assign]
        lambda worker: (told.append(list(bench.edge.log)), heard(worker))[1]
    )
    await bench.start()
    await bench.place.unload(Reason.UNLOADED)
    assert bench.edge.log == ["export 1", "shutdown 1"]
    assert kept.n_bytes == N_BYTES
    bench.place.start()
    await bench.until("ready 2")
    assert told == [[], ["export 1", "shutdown 1", "import 2"]]
    assert kept.n_bytes == 0
    await bench.close()
    await kept.close()
    assert memory_files() == 0


async def test_a_worker_of_another_fingerprint_is_not_asked() -> None:
    kept = await kept_of("/a")
    bench = Bench(kept=kept, model_path="/b")
    bench.edge.scripts["/b"] = Script(fingerprint="/b")
    await bench.start()
    assert bench.edge.log == []
    assert kept.n_bytes == N_BYTES
    await bench.close()
    await kept.close()
    assert memory_files() == 0


async def test_with_0_bytes_no_worker_is_asked() -> None:
    kept = KeptKv(0)
    bench = Bench(kept=kept)
    await bench.start()
    await bench.place.unload(Reason.UNLOADED)
    assert bench.edge.log == ["shutdown 1"]
    await bench.close()


async def test_the_oldest_goes_first_when_there_are_too_many_bytes() -> None:
    kept = await kept_of("/a", "/b", "/c", limit_bytes=2 * N_BYTES)
    assert kept.n_bytes == 2 * N_BYTES
    assert memory_files() == 2
    for path, is_asked in (("/a", False), ("/c", True)):
        bench = Bench(kept=kept, model_path=path)
        bench.edge.scripts[path] = Script(fingerprint=path)
        await bench.start()
        assert ("import 1" in bench.edge.log) is is_asked
        await bench.close()
    await kept.close()


async def test_a_load_that_needs_the_memory_gets_it() -> None:
    kept = await kept_of("/a", "/b", free_bytes=1000)
    kept.make_room(1000)
    assert kept.n_bytes == 2 * N_BYTES
    kept.make_room(1001)
    assert kept.n_bytes == 0
    assert memory_files() == 0


async def test_a_forgotten_model_s_are_dropped() -> None:
    kept = await kept_of("/a")
    kept.forget("another")
    assert kept.n_bytes == N_BYTES
    kept.forget("m")
    assert kept.n_bytes == 0


@pytest.mark.parametrize("is_lost", [False, True])
async def test_an_unload_goes_on_when_the_worker_gives_nothing(
    monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    """It hangs, or dies meanwhile."""
    monkeypatch.setattr("supervisor.fleet.kv_handover.MOVE_S", 0.01)
    kept = KeptKv(PLENTY)
    bench = Bench(kept=kept)
    await bench.start()
    link = bench.edge.links[0]
    said = link.send

    def silent(message: object) -> None:
        if type(message).__name__ != "ExportKv":
            said(message)  # type: ignore[arg-type]
        elif is_lost:
            bench.edge.process_of(1).exit(KILLED)

    link.send = silent  # type: ignore[method-assign]
    await bench.place.unload(Reason.UNLOADED)
    assert bench.place.state is PlaceState.ABSENT
    assert kept.n_bytes == 0
    assert memory_files() == 0
    await bench.close()
