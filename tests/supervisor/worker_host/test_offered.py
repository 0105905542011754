"""What a front offers to hosts: files that may be sent, under names that hosts accept."""

from pathlib import Path

import pytest
from msgspec import structs

from gpufc.config import ModelConfig
from gpufc.ids import Epoch
from supervisor.cluster.messages import (
    NotObtained,
    Obtaining,
    Trouble,
)
from supervisor.remote import sources
from tests.supervisor.worker_host.supplied import (
    BYTES,
    OTHER,
    Bench,
    Outcome,
    content,
    model,
    until,
)


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
