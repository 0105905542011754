"""A mirror is asked before the front, which stands in for it."""

from pathlib import Path

import pytest

from supervisor.cluster.messages import (
    PIECE_BYTES,
)
from supervisor.worker_host import copying
from tests.supervisor.downloads.server import CONTENT, hub
from tests.supervisor.worker_host.supplied import (
    Bench,
    content,
    model,
)


async def test_a_mirror_is_asked_first(tmp_path: Path) -> None:
    async with hub() as server:
        bench = Bench(tmp_path, f"{server.url}/")
        host, config = bench.host(), model(bench, content=CONTENT)
        server.n_taken = len(CONTENT)
        assert content((await bench.obtained(host, config)).model_path) == CONTENT
        assert [path for path, _ in server.asked] == ["/m.gguf"]
        assert host.pieces() == []
        bench.close()


@pytest.mark.parametrize("fault", ["absent", "another file"])
async def test_the_front_stands_in_for_a_mirror(tmp_path: Path, fault: str) -> None:
    async with hub() as server:
        bench = Bench(tmp_path, server.url)
        host, config = bench.host(), model(bench, content=CONTENT)
        if fault == "absent":
            server.statuses = [404]
        else:
            server.content = CONTENT[::-1]
        assert content((await bench.obtained(host, config)).model_path) == CONTENT
        assert len(server.asked) == 1
        assert host.pieces() != []
        bench.close()


async def test_bytes_of_a_mirror_that_ends_early_are_not_kept(tmp_path: Path) -> None:
    async with hub() as server:
        bench = Bench(tmp_path, server.url)
        host, config = bench.host(), model(bench, content=CONTENT)
        server.content, server.n_chunked = CONTENT[::-1], PIECE_BYTES
        assert content((await bench.obtained(host, config)).model_path) == CONTENT
        assert host.pieces()[-1].offset > PIECE_BYTES
        assert sum(one.offset == 0 for one in host.pieces()) == 1
        bench.close()


async def test_a_silent_mirror_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "MIRROR_SILENCE_S", 0.2)
    async with hub() as server:
        bench = Bench(tmp_path, server.url)
        server.is_silent = True
        host, config = bench.host(), model(bench, content=CONTENT)
        assert content((await bench.obtained(host, config)).model_path) == CONTENT
        assert len(server.asked) == 1
        bench.close()
