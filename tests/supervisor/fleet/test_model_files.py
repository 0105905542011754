"""Whether a model's files are others than before, and the start of a failed worker then."""

import asyncio
import os
from pathlib import Path

import pytest

from gpufc.config import ModelConfig
from supervisor.fleet import upkeep
from supervisor.fleet.model_files import models_of, stamps
from supervisor.fleet.port import ConditionStatus
from tests.supervisor.fleet.scripted import BROKEN, Bench, Script


def test_a_file_that_is_replaced_overwritten_or_gone_has_another_stamp(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    config = ModelConfig(model_path=str(file))
    assert stamps(config) == (None,)
    file.write_bytes(b"one")
    first = stamps(config)
    assert stamps(config) == first
    os.utime(file, ns=(1, 1))
    second = stamps(config)
    file.unlink()
    file.write_bytes(b"two")
    assert len({first, second, stamps(config)}) == 3


def test_all_files_of_a_split_model_and_the_draft_model_count(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"m[q]-0000{number}-of-00002.gguf").write_bytes(b"x")
    first = tmp_path / "m[q]-00001-of-00002.gguf"
    config = ModelConfig(model_path=str(first), draft_model_path=str(tmp_path / "draft"))
    before = stamps(config)
    assert len(before) == 4
    assert before[-1] is None
    (tmp_path / "m[q]-00002-of-00002.gguf").write_bytes(b"xy")
    assert stamps(config) != before


def test_all_files_of_a_worker_are_found_by_model(tmp_path: Path) -> None:
    names = ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "d.gguf", "l.gguf", "chat.jinja")
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    config = ModelConfig(
        model_path=str(tmp_path / names[0]),
        draft_model_path=str(tmp_path / "d.gguf"),
        adapters=(f"one={tmp_path / 'l.gguf'}",),
        chat_template=str(tmp_path / "chat.jinja"),
    )
    found = [[path.name for path in files] for files in models_of(config)]
    assert found == [[*names[:2]], ["d.gguf"], ["l.gguf"], ["chat.jinja"]]
    (tmp_path / names[1]).unlink()
    assert [files[0].name for files in models_of(config)] == ["d.gguf", "l.gguf", "chat.jinja"]


def test_a_template_of_the_model_is_no_file() -> None:
    assert models_of(ModelConfig(model_path="/absent.gguf", chat_template="chatml")) == []


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "m.gguf"


def write(model: Path, data: bytes) -> None:
    model.write_bytes(data)


async def failed(model: Path) -> Bench:
    """A worker that failed because its model could not be loaded; the next load is good."""
    bench = Bench(model_path=str(model))
    bench.edge.scripts[str(model)] = Script(loads=(BROKEN,))
    bench.place.start()
    await bench.until_changed(lambda: bench.place.condition().status is ConditionStatus.FAILED)
    return bench


async def test_a_model_file_that_comes_back_ends_failed_by_itself(model: Path) -> None:
    bench = await failed(model)
    watch = asyncio.create_task(upkeep.await_model_files(bench.place, look_s=0.001))
    write(model, b"whole")
    await bench.until("ready 2")
    watch.cancel()
    await bench.close()


async def test_the_same_file_is_not_tried_again(model: Path) -> None:
    write(model, b"broken")
    bench = await failed(model)
    looks: list[object] = []

    def counted(config: ModelConfig) -> object:
        looks.append(config)
        return stamps(config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upkeep, "stamps", counted)
        watch = asyncio.create_task(upkeep.await_model_files(bench.place, look_s=0.0001))
        await bench_until(lambda: len(looks) > 5)
        watch.cancel()
    assert len(bench.edge.booted) == 1
    await bench.close()


async def test_a_file_that_is_still_being_written_is_waited_for(model: Path) -> None:
    bench = await failed(model)
    write(model, b"")
    looks = 0

    def written(config: ModelConfig) -> object:
        nonlocal looks
        looks += 1
        if looks < 5:  # between any two looks something is written
            model.write_bytes(b"x" * looks)
        assert looks < 5 or len(bench.edge.booted) == 1
        return stamps(config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upkeep, "stamps", written)
        watch = asyncio.create_task(upkeep.await_model_files(bench.place, look_s=0.0001))
        await bench.until("ready 2")
        watch.cancel()
    assert looks >= 5
    await bench.close()


async def bench_until(holds: object) -> None:
    async with asyncio.timeout(60):
        while not holds():  # type: ignore[operator]  # noqa: ASYNC110 - a thread counts
            await asyncio.sleep(0)
