"""A host gets the files of the front's models: whole, verified, and no others."""

from pathlib import Path

import pytest
from msgspec import structs

from gpufc.config import ModelConfig
from supervisor.cluster.messages import (
    PIECE_BYTES,
    NotObtained,
    Obtain,
    Piece,
    ToHost,
    Trouble,
)
from supervisor.downloads import part_file
from supervisor.worker_host import copying
from supervisor.worker_host.library import Library
from tests.supervisor.worker_host.supplied import (
    BYTES,
    OTHER,
    Bench,
    content,
    done,
    files,
    model,
    spoil,
    until,
)


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


async def test_a_defect_of_the_host_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("odd")

    host = bench.host()
    monkeypatch.setattr(host.library, "find", broken)
    assert await bench.failed(host, model(bench)) == "failed: ZeroDivisionError: odd"
    assert [one.trouble for one in host.said if isinstance(one, NotObtained)] == [Trouble.FAILED]
