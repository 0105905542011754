"""A host gets the files of the front's models: whole, verified, and no file beyond them."""

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from msgspec import structs

from gpufc.config import ModelConfig
from gpufc.ids import Epoch
from supervisor.cluster.messages import (
    PIECE_BYTES,
    AskPiece,
    NotObtained,
    Obtain,
    Obtaining,
    Piece,
    ToHost,
    Trouble,
)
from supervisor.downloads import part_file
from supervisor.downloads.checksums import Over
from supervisor.remote import sources, supply
from supervisor.worker_host import copying
from supervisor.worker_host.library import Library
from tests.supervisor.downloads.server import CONTENT, hub
from tests.supervisor.worker_host.supplied import Bench, Outcome, Wire

BYTES = random.Random(1).randbytes(5 * PIECE_BYTES + 17)
OTHER = random.Random(2).randbytes(2 * PIECE_BYTES)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def model(bench: Bench, name: str = "m.gguf", content: bytes = BYTES) -> ModelConfig:
    return ModelConfig(model_path=bench.file(name, content))


def content(path: str | None) -> bytes:
    assert path is not None
    return Path(path).read_bytes()


def spoil(path: str | None) -> None:
    assert path is not None
    Path(path).write_bytes(BYTES[::-1])
    os.utime(path, ns=(1, 1))  # clocks of file systems tick slowly


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - a thread and the loop are all that it waits for
            await asyncio.sleep(0.002)


def done(host: Wire, epoch: Epoch) -> dict[int, int]:
    """The bytes of each part that a job has by now."""
    job = host.provision._jobs.get(epoch)
    return dict(job.done) if job is not None else {}


def files(host: Wire) -> list[str]:
    return sorted(path.name for path in host.library.folder.rglob("*") if path.is_file())


async def test_a_model_that_the_host_lacks_is_copied(bench: Bench) -> None:
    host, config = bench.host(), model(bench)
    here = await bench.obtained(host, config)
    assert here.model_path is not None
    path = Path(here.model_path)
    assert content(here.model_path) == BYTES
    assert (path.name, path.is_relative_to(host.library.folder)) == ("m.gguf", True)
    assert files(host) == ["checksums.json", "m.gguf"]
    assert [one.offset for one in host.pieces()] == [*range(0, len(BYTES), PIECE_BYTES)]


async def test_the_second_time_it_is_there(bench: Bench) -> None:
    config = model(bench)
    await bench.obtained(bench.host(), config)
    again = bench.host()
    assert content((await bench.obtained(again, config)).model_path) == BYTES
    assert again.pieces() == []


async def test_a_file_at_the_fronts_path_is_used_as_it_is(bench: Bench) -> None:
    """A shared folder. The front reads no whole file for it."""
    host, config = bench.host(library=Library), model(bench)
    assert await bench.obtained(host, config) == config
    assert host.pieces() == []
    assert bench.checksums.known(Path(config.model_path or "")) is None


async def test_another_file_at_the_fronts_path_is_not_used(bench: Bench) -> None:
    """Its name and size are right, and its samples are not."""
    host, config = bench.host(library=Library), model(bench)
    wanted: list[Obtain] = []

    def replaced(message: ToHost) -> ToHost:
        if isinstance(message, Obtain) and not wanted:
            wanted.append(message)
            (one,) = message.models
            path = host.library.folder / "m.gguf"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(BYTES[::-1])
        if isinstance(message, Obtain):
            (one,) = message.models
            path = host.library.folder / "m.gguf"
            return structs.replace(message, models=(structs.replace(one, path=str(path)),))
        return message

    host.change = replaced
    _, outcome = bench.begin(host, config)
    await outcome.over()
    assert outcome.is_ready
    copies = list(host.library.folder.glob("copies/*/m.gguf"))
    assert [one.read_bytes() for one in copies] == [BYTES]


async def test_a_file_of_another_name_is_known_by_its_content(bench: Bench) -> None:
    host = bench.host()
    host.library.folder.mkdir()
    (host.library.folder / "same-size.gguf").write_bytes(BYTES[::-1])
    (host.library.folder / "pulled.gguf").write_bytes(BYTES)
    here = await bench.obtained(host, model(bench))
    assert here.model_path == str(host.library.folder / "pulled.gguf")
    assert host.pieces() == []


async def test_a_copy_that_was_changed_is_not_used(bench: Bench) -> None:
    host, config = bench.host(), model(bench)
    spoil((await bench.obtained(host, config)).model_path)
    again = bench.host()
    assert content((await bench.obtained(again, config)).model_path) == BYTES
    assert again.pieces() != []


async def test_all_files_of_a_worker_come(bench: Bench) -> None:
    parts = [bench.file(f"m-0000{n}-of-00003.gguf", OTHER + b"%d" % n) for n in (1, 2, 3)]
    draft, template = bench.file("draft.gguf", OTHER), bench.file("chat.jinja", b"{{ x }}")
    named, plain = bench.file("one.gguf", b"one"), bench.file("two.gguf", b"two")
    config = ModelConfig(
        model_path=parts[0],
        draft_model_path=draft,
        chat_template=template,
        adapters=(f"first={named}", plain),
    )
    here = await bench.obtained(bench.host(), config)
    folder = Path(here.model_path or "").parent
    assert [path.name for path in sorted(folder.iterdir())] == [Path(one).name for one in parts]
    assert [(folder / Path(one).name).read_bytes()[-1:] for one in parts] == [b"1", b"2", b"3"]
    assert content(here.draft_model_path) == OTHER
    assert content(here.chat_template) == b"{{ x }}"
    (first, second) = (one.partition("=") for one in here.adapters)
    assert (first[0], content(first[2])) == ("first", b"one")
    assert (second[0], content(second[2])) == ("two", b"two")


async def test_a_model_that_the_front_lacks_is_left_to_the_worker(bench: Bench) -> None:
    host, config = bench.host(), ModelConfig(model_path="/absent/m.gguf", chat_template="chatml")
    assert await bench.obtained(host, config) == config
    assert host.sent == []


async def test_a_split_model_of_which_the_front_lacks_a_part_is_left_to_the_worker(
    bench: Bench,
) -> None:
    host, config = bench.host(), model(bench, "m-00001-of-00002.gguf")
    assert await bench.obtained(host, config) == config
    assert host.sent == []


async def test_a_cut_copy_goes_on_at_its_offset(bench: Bench) -> None:
    config, first = model(bench), bench.host()
    cut_at = 3 * PIECE_BYTES
    first.passes = lambda message: not (isinstance(message, Piece) and message.offset >= cut_at)
    epoch, _ = bench.begin(first, config)
    await until(lambda: any(one.offset >= cut_at for one in first.pieces()))
    await until(lambda: done(first, epoch) == {1: cut_at})
    bench.supply.end(epoch)
    first.provision.forgo_all()  # the connection is gone
    again = bench.host()
    assert content((await bench.obtained(again, config)).model_path) == BYTES
    assert min(one.offset for one in again.pieces()) == cut_at


async def test_a_front_that_sends_nothing_ends_the_copy(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "PIECE_S", 0.05)
    host = bench.host()
    host.passes = lambda message: not isinstance(message, Piece)
    failure = await bench.failed(host, model(bench))
    assert failure == "cut: the front has sent nothing of m.gguf for 0.05 s"


async def test_wrong_bytes_are_noticed_and_not_kept(bench: Bench) -> None:
    host, config = bench.host(), model(bench)

    def spoilt(message: ToHost) -> ToHost:
        if isinstance(message, Piece) and message.offset == PIECE_BYTES:
            return structs.replace(message, data=message.data[::-1])
        return message

    host.change = spoilt
    assert (await bench.failed(host, config)).startswith("checksum: m.gguf is not the right file")
    assert not any(name.startswith("m.gguf") for name in files(host))
    host.change = lambda message: message
    assert content((await bench.obtained(host, config)).model_path) == BYTES


async def test_a_full_disk_is_noticed_before_the_copy(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_file, "SPARE_BYTES", 1 << 60)
    host = bench.host()
    failure = await bench.failed(host, model(bench))
    assert failure.startswith("no space: ")
    assert "and m.gguf needs" in failure
    assert host.pieces() == []


async def test_a_models_folder_that_cannot_be_written_is_told(bench: Bench) -> None:
    host = bench.host()
    host.library.folder.write_text("a file")
    failure = await bench.failed(host, model(bench))
    assert failure.startswith("failed: ")
    assert "cannot be written" in failure


async def test_a_file_that_changes_at_the_front_ends_the_copy(bench: Bench) -> None:
    host, config = bench.host(), model(bench)

    def changed(message: ToHost) -> bool:
        if isinstance(message, Obtain) and message.models[0].parts[0].sha256 is not None:
            spoil(config.model_path)
        return True

    host.passes = changed
    assert await bench.failed(host, config) == "unreadable: m.gguf: it has changed at the front"


async def test_a_model_outside_of_the_allowed_folders_is_not_sent(bench: Bench) -> None:
    """Such as one whose name has become a link since the front has checked it."""
    host, secret = bench.host(), bench.folder / "secret.gguf"
    secret.write_bytes(b"secret")
    (bench.models / "m.gguf").symlink_to(secret)
    config, outcome = ModelConfig(model_path=str(bench.models / "m.gguf")), Outcome()
    within = (str(bench.models.resolve()),)
    bench.supply.begin(host.channel, Epoch(1), config, outcome.listener(), within)
    assert "does not lie in an allowed folder" in ((await outcome.over()).failure or "")
    assert host.sent == []


async def test_a_template_may_lie_elsewhere(bench: Bench) -> None:
    """Allowed folders are those of models. A worker opens other files from any."""
    template = bench.folder / "chat.jinja"
    template.write_text("{{ x }}")
    config = structs.replace(model(bench), chat_template=str(template))
    host, outcome = bench.host(), Outcome()
    within = (str(bench.models.resolve()),)
    bench.supply.begin(host.channel, Epoch(1), config, outcome.listener(), within)
    assert (await outcome.over()).is_ready


@pytest.mark.parametrize("name", [".hidden.jinja", f"{'x' * 201}.jinja"])
async def test_a_name_that_no_host_accepts_fails_its_own_model_only(
    bench: Bench, name: str
) -> None:
    host, config = bench.host(), model(bench)
    bad = structs.replace(config, chat_template=bench.file(name, b"{{ x }}"))
    assert "cannot be sent to a host" in await bench.failed(host, bad)
    assert host.sent == []
    assert content((await bench.obtained(host, config)).model_path) == BYTES


async def test_too_many_adapters_fail_their_own_model_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_MODELS", 1)
    config = structs.replace(model(bench), adapters=(bench.file("one.gguf", b"one"),))
    assert "2 of at most 1 models" in await bench.failed(bench.host(), config)


async def test_a_path_may_be_spelt_in_another_way(bench: Bench) -> None:
    path = bench.file("m.gguf", BYTES)
    config = ModelConfig(model_path=path.replace("/m.gguf", "//./m.gguf"))
    here = await bench.obtained(host := bench.host(), config)
    assert Path(here.model_path or "").is_relative_to(host.library.folder)


async def test_the_first_part_of_a_split_model_needs_its_name(bench: Bench) -> None:
    parts = [bench.file(f"m-0000{n}-of-00002.gguf", OTHER + b"%d" % n) for n in (1, 2)]
    host = bench.host()
    host.library.folder.mkdir()
    (host.library.folder / "other.gguf").write_bytes(OTHER + b"1")
    (host.library.folder / "m-00002-of-00002.gguf").write_bytes(OTHER + b"2")
    here = await bench.obtained(host, ModelConfig(model_path=parts[0]))
    assert Path(here.model_path or "").name == "m-00001-of-00002.gguf"


async def test_a_hosts_words_are_made_printable(bench: Bench) -> None:
    host, config = bench.host(), model(bench)
    host.passes = lambda message: False
    epoch, outcome = bench.begin(host, config)
    await until(lambda: host.sent)
    bench.supply.message(host.channel, Obtaining(epoch, "\x1b[2J", "m.gguf", 1, 2))
    bench.supply.message(host.channel, NotObtained(epoch, Trouble.FAILED, "a\x1b]0;b"))
    assert (outcome.progress, outcome.failure) == (
        ["\\x1b[2J m.gguf, 50 %"],
        "failed: a\\x1b]0;b",
    )


async def test_no_file_but_those_of_the_job_is_sent(bench: Bench) -> None:
    host, config = bench.host(), model(bench)
    bench.file("secret", b"secret")
    host.passes = lambda message: not isinstance(message, Piece)
    epoch, _ = bench.begin(host, config)
    await until(host.pieces)
    n_sent = len(host.sent)
    for epoch_no, number in ((epoch, 2), (epoch, 0), (epoch, -1), (epoch + 1, 1)):
        bench.supply.message(host.channel, AskPiece(epoch_no, number, 0))
    stranger = bench.host("b")
    bench.supply.message(stranger.channel, AskPiece(epoch, 1, 0))
    await until(lambda: bench.supply._server is not None and bench.supply._server.done())
    sent = [message for message in host.sent[n_sent:] if isinstance(message, Piece)]
    assert {message.number for message in sent} <= {1}
    assert stranger.sent == []


async def test_no_piece_beyond_a_files_end_is_read(bench: Bench) -> None:
    host, config = bench.host(), model(bench)
    host.passes = lambda message: not isinstance(message, Piece)
    epoch, _ = bench.begin(host, config)
    await until(host.pieces)
    for offset in (len(BYTES), 1 << 63):
        n_asked = len(bench.supply._asks)
        bench.supply.message(host.channel, AskPiece(epoch, 1, offset))
        assert len(bench.supply._asks) == n_asked


async def test_a_host_that_reads_nothing_is_sent_only_so_much(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supply, "MOST_UNRECEIVED", 4)
    host, config = bench.host(), model(bench)
    host.passes = lambda message: not isinstance(message, Piece)

    def sent() -> list[Piece]:
        return [one for one in host.sent if isinstance(one, Piece)]

    async def ask(receipt: int) -> None:
        for _ in range(20):
            bench.supply.message(host.channel, AskPiece(epoch, 1, 0, receipt))
        await until(lambda: bench.supply._server is None or bench.supply._server.done())

    epoch, _ = bench.begin(host, config)
    await until(sent)
    await ask(0)
    await ask(1)
    assert len(sent()) == 4
    await ask(sent()[1].receipt)
    assert len(sent()) == 6


async def test_the_front_reads_no_further_for_a_job_that_is_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, over, ends = threading.Event(), threading.Event(), list[BaseException]()
    read = bench.checksums.sha256

    def slow(path: Path, told: Callable[[int], None], via: Path) -> str:
        if begun.is_set():
            return read(path, told, via)
        begun.set()
        assert over.wait(60)
        try:
            return read(path, told, via)
        except BaseException as err:
            ends.append(err)
            raise

    monkeypatch.setattr(bench.checksums, "sha256", slow)
    host, config = bench.host(), model(bench)
    epoch, _ = bench.begin(host, config)
    await until(begun.is_set)
    bench.supply.end(epoch)
    over.set()
    assert content((await bench.obtained(host, config)).model_path) == BYTES
    assert [type(err) for err in ends] == [Over]


async def test_a_host_reads_no_further_for_a_job_that_is_over(bench: Bench) -> None:
    host, config = bench.host(), model(bench)
    host.passes = lambda message: not isinstance(message, Piece)
    epoch, _ = bench.begin(host, config)
    await until(host.pieces)
    job = host.provision._jobs[epoch]
    host.provision.forgo(epoch)
    with pytest.raises(Over):
        job.told(job.wanted.models[0].parts[0], 1)


async def test_other_pieces_come_after_one_that_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, faults = supply._read, [OverflowError("odd")]

    def odd(source: supply.Source, offset: int) -> tuple[bytes, str]:
        if faults:
            raise faults.pop()
        return read(source, offset)

    monkeypatch.setattr(supply, "_read", odd)
    host, config = bench.host(), model(bench)
    assert await bench.failed(host, config) == "failed: OverflowError: odd"
    assert content((await bench.obtained(host, config)).model_path) == BYTES


async def test_no_piece_is_sent_before_its_turn(bench: Bench) -> None:
    host = bench.host()
    host.passes = lambda message: False
    epoch, _ = bench.begin(host, model(bench))
    await until(lambda: host.sent)
    bench.supply.message(host.channel, AskPiece(epoch, 1, 0))
    assert not bench.supply._asks


async def test_two_workers_of_one_machine_share_a_copy(bench: Bench) -> None:
    host, config = bench.host(), model(bench)
    first, second = bench.begin(host, config), bench.begin(host, config)
    for _, outcome in (first, second):
        assert (await outcome.over()).is_ready
    assert len(host.pieces()) == -(-len(BYTES) // PIECE_BYTES)


async def test_two_hosts_of_one_machine_share_a_models_folder(bench: Bench) -> None:
    """Such as in tests: one waits for the other one's copy."""
    config, one, two = model(bench), bench.host(), bench.host()
    two.machine = "b"
    for _, outcome in (bench.begin(one, config), bench.begin(two, config)):
        assert (await outcome.over()).is_ready
    assert len(one.pieces()) + len(two.pieces()) == -(-len(BYTES) // PIECE_BYTES)


async def test_only_so_many_machines_copy_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = model(bench)
    hosts = [bench.host(name) for name in "abc"]
    for host in hosts:
        host.passes = lambda message: not isinstance(message, Piece)
    begun = [bench.begin(host, config) for host in hosts]
    await until(lambda: sum(bool(host.pieces()) for host in hosts) == supply.MOST_COPYING)
    (waiting,) = [n for n, host in enumerate(hosts) if not host.pieces()]
    await until(lambda: begun[waiting][1].progress)
    assert begun[waiting][1].progress == ["waits until others have their copies"]
    first = next(n for n, host in enumerate(hosts) if host.pieces())
    bench.supply.end(begun[first][0])  # such as a lost host
    await until(hosts[waiting].pieces)


async def test_a_host_that_gets_no_further_loses_its_turn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supply, "STALLED_S", 0.05)
    host = bench.host()
    host.passes = lambda message: not isinstance(message, Piece)
    assert await bench.failed(host, model(bench)) == "stalled: no progress for 0.05 s"


async def test_a_host_that_only_says_the_same_again_loses_its_turn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supply, "STALLED_S", 0.2)
    host = bench.host()
    host.passes = lambda message: not isinstance(message, Piece)
    _, outcome = bench.begin(host, model(bench))
    await until(host.pieces)
    while outcome.failure is None:
        host.provision.look()
        await asyncio.sleep(0.01)
    assert outcome.failure == "stalled: no progress for 0.2 s"


async def test_a_second_model_waits_for_the_first_at_the_front(bench: Bench) -> None:
    """A job that has a turn and waits for another copy of its host would look stalled."""
    host = bench.host()
    host.passes = lambda message: not isinstance(message, Piece)
    bench.begin(host, model(bench))
    await until(host.pieces)
    _, second = bench.begin(host, model(bench, "n.gguf", OTHER))
    await until(lambda: second.progress)
    assert second.progress == ["waits until others have their copies"]


async def test_progress_is_told(bench: Bench) -> None:
    host = bench.host()
    host.passes = lambda message: (
        not (isinstance(message, Piece) and message.offset >= 2 * PIECE_BYTES)
    )
    epoch, outcome = bench.begin(host, model(bench))
    await until(lambda: done(host, epoch) == {1: 2 * PIECE_BYTES})
    host.provision.look()
    await until(lambda: outcome.progress)
    assert outcome.progress[-1] == "copying m.gguf, 39 %"


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


async def test_a_defect_of_the_host_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("odd")

    host = bench.host()
    monkeypatch.setattr(host.library, "find", broken)
    assert await bench.failed(host, model(bench)) == "failed: ZeroDivisionError: odd"
    assert [one.trouble for one in host.said if isinstance(one, NotObtained)] == [Trouble.FAILED]
