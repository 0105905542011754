"""A transfer survives cuts, and lets nothing wrong get the file's name."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any

import pytest
from msgspec import structs

from supervisor.downloads import part_file, transfer
from supervisor.downloads.part_file import DownloadFailed
from supervisor.downloads.pull import files_of, pull
from supervisor.downloads.transfer import Moved, Progress, Transfer, session
from supervisor.downloads.wanted import WantedFile
from tests.supervisor.dispatch.fakes import until
from tests.supervisor.downloads.server import CONTENT, DIGEST, Hub, hub


@pytest.fixture
async def server() -> AsyncIterator[Hub]:
    async with hub() as started:
        yield started


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PIECE_BYTES", 10_000)
    monkeypatch.setattr(part_file, "SPARE_BYTES", 0)


def wanted(server: Hub, **fields: Any) -> WantedFile:
    given = {"size": len(CONTENT), "sha256": DIGEST}
    return WantedFile(f"{server.url}/m.gguf", "m.gguf", **(given | fields))


def noting(server: Hub, then: Progress = lambda _moved: None) -> Progress:
    def note(moved: Moved) -> None:
        server.n_taken = moved.done
        then(moved)

    return note


async def fetched(
    server: Hub,
    folder: Path,
    file: WantedFile,
    progress: Progress = lambda _moved: None,
    token: str | None = None,
) -> Path:
    async with session(token) as http:
        return await Transfer(http, file, folder, noting(server, progress), wait_s=0.0).run()


async def test_a_file_comes_whole_and_alone(server: Hub, tmp_path: Path) -> None:
    seen: list[Moved] = []
    path = await fetched(server, tmp_path / "models", wanted(server), progress=seen.append)
    assert path.read_bytes() == CONTENT
    assert [one.name for one in path.parent.iterdir()] == ["m.gguf"]
    assert seen[-1].done == seen[-1].total == len(CONTENT)
    await fetched(server, path.parent, wanted(server))
    assert len(server.asked) == 1  # it is there


async def test_a_transfer_that_is_cut_goes_on_where_it_ended(server: Hub, tmp_path: Path) -> None:
    server.cuts = [100_000, 100_000, 0]
    path = await fetched(server, tmp_path, wanted(server))
    assert path.read_bytes() == CONTENT
    ranges = [headers.get("range") for _, headers in server.asked]
    assert ranges[0] is None
    assert ranges[1:] == ["bytes=100000-", "bytes=200000-", "bytes=200000-"]


async def test_a_later_process_goes_on_too(server: Hub, tmp_path: Path) -> None:
    server.cuts = [200_000]
    async with session() as http:
        first = Transfer(http, wanted(server), tmp_path, noting(server), wait_s=3600.0)
        task = asyncio.create_task(first.run())
        await until(lambda: server.n_taken == 200_000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert not (tmp_path / "m.gguf").exists()
    assert (tmp_path / "m.gguf.part").stat().st_size == 200_000
    assert (await fetched(server, tmp_path, wanted(server))).read_bytes() == CONTENT
    assert server.asked[-1][1]["range"] == "bytes=200000-"


async def test_another_file_under_the_same_address_begins_again(
    server: Hub, tmp_path: Path
) -> None:
    server.cuts = [200_000]
    server.content = b"GGUF" + b"x" * (len(CONTENT) - 4)
    file = wanted(server, sha256=None)

    def changed(_moved: Moved) -> None:
        server.content, server.tag = CONTENT, '"two"'

    path = await fetched(server, tmp_path, file, progress=changed)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
async def test_bytes_that_nothing_vouches_for_are_not_joined(
    server: Hub, tmp_path: Path, tag: str | None
) -> None:
    server.cuts, server.tag = [200_000], tag
    path = await fetched(server, tmp_path, wanted(server, sha256=None))
    assert path.read_bytes() == CONTENT
    assert [headers.get("range") for _, headers in server.asked] == [None, None]


async def test_a_server_without_ranges_is_asked_from_the_beginning(
    server: Hub, tmp_path: Path
) -> None:
    server.cuts, server.knows_ranges = [200_000], False
    assert (await fetched(server, tmp_path, wanted(server))).read_bytes() == CONTENT


async def test_a_wrong_checksum_leaves_nothing(server: Hub, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="not the right file"):
        await fetched(server, tmp_path, wanted(server, sha256="0" * 64))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("claimed", "error"),
    [(len(CONTENT) + 5, "instead of"), (len(CONTENT) - 5, "instead of")],
)
async def test_a_server_that_lies_about_the_length_is_caught(
    server: Hub, tmp_path: Path, claimed: int, error: str
) -> None:
    server.claimed = claimed
    with pytest.raises(DownloadFailed, match=error):
        await fetched(server, tmp_path, wanted(server))
    assert not (tmp_path / "m.gguf").exists()


async def test_a_length_that_never_comes_ends_the_transfer(server: Hub, tmp_path: Path) -> None:
    server.claimed = len(CONTENT) + 5
    with pytest.raises(DownloadFailed, match="tried 8 times"):
        await fetched(server, tmp_path, wanted(server, size=None, sha256=None))
    assert not (tmp_path / "m.gguf").exists()


async def test_busy_servers_are_asked_again_and_refusals_are_final(
    server: Hub, tmp_path: Path
) -> None:
    server.statuses = [503, 429, 500]
    await fetched(server, tmp_path, wanted(server))
    server.statuses = [403]
    with pytest.raises(DownloadFailed, match="403"):
        await fetched(server, tmp_path / "other", wanted(server))
    assert len(server.asked) == 5


async def test_a_token_does_not_follow_to_another_host(server: Hub, tmp_path: Path) -> None:
    async with hub() as other:
        url = f"{server.url}/moved/m.gguf?to={other.url}/m.gguf"
        path = await fetched(server, tmp_path, structs.replace(wanted(server), url=url), token="t")
        assert path.read_bytes() == CONTENT
        assert server.asked[0][1]["Authorization"] == "Bearer t"
        assert "authorization" not in other.asked[0][1]


async def test_two_transfers_of_one_file_do_not_mix(server: Hub, tmp_path: Path) -> None:
    async with session() as http:
        one = Transfer(http, wanted(server), tmp_path)
        with one.file.opened(), pytest.raises(DownloadFailed, match="another process"):
            await Transfer(http, wanted(server), tmp_path).run()


async def test_a_full_disk_is_noticed_before(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_file, "SPARE_BYTES", 1 << 60)
    with pytest.raises(DownloadFailed, match="needs"):
        await fetched(server, tmp_path, wanted(server))


async def test_a_repository_is_listed_and_its_file_checked(server: Hub, tmp_path: Path) -> None:
    server.listing = [
        {"type": "file", "path": "README.md", "size": 5},
        {
            "type": "file",
            "path": "x/model-Q4_K_M.gguf",
            "size": len(CONTENT),
            "lfs": {"oid": DIGEST},
        },
        {"type": "file", "path": "model-F16.gguf", "size": 9, "lfs": {"oid": DIGEST}},
    ]
    async with session() as http:
        files = await files_of(http, "owner/repo", server.url, None, None)
        (path,) = await pull(http, files, tmp_path, lambda _file, _moved: None)
    assert (path.name, path.read_bytes()) == ("model-Q4_K_M.gguf", CONTENT)
    assert server.asked[-1][0] == "/owner/repo/resolve/main/x/model-Q4_K_M.gguf"


async def test_a_long_listing_is_read_to_its_end(server: Hub, tmp_path: Path) -> None:
    server.listing = [{"type": "file", "path": f"m{n}-Q8_0.gguf", "size": 9} for n in range(9000)]
    async with session() as http:
        (file,) = await files_of(http, "o/r:m8999", server.url, None, None)
    assert file.name == "m8999-Q8_0.gguf"


async def test_a_file_of_unknown_size_leaves_the_disk_its_space(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with session() as http:
        file = Transfer(http, wanted(server, size=None), tmp_path).file
        with file.opened():
            file.take(b"x")
            monkeypatch.setattr(part_file, "SPARE_BYTES", 1 << 60)
            with pytest.raises(DownloadFailed, match="needs"):
                file.take(b"x")


async def test_a_part_that_has_got_its_name_is_not_written_to(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process ends its transfer between our opening of the part and our lock."""
    part = tmp_path / "m.gguf.part"
    part.write_bytes(CONTENT)
    real = fcntl.flock

    def late(file: IO[bytes], operation: int) -> None:
        part.replace(tmp_path / "m.gguf")
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    async with session() as http:
        with pytest.raises(DownloadFailed, match="another process"):
            await Transfer(http, wanted(server, size=None, sha256=None), tmp_path).run()
    assert (tmp_path / "m.gguf").read_bytes() == CONTENT


async def test_a_note_is_not_written_through_a_link(server: Hub, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("kept")
    (tmp_path / "m.gguf.part.json").symlink_to(other)
    with pytest.raises(DownloadFailed, match="cannot be written"):
        await fetched(server, tmp_path, wanted(server))
    assert other.read_text() == "kept"
