"""The flight recorder's records at the terminal."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from gpufc.config import ModelConfig
from gpufc.ids import Epoch, RequestId, RequestNo, WorkerName
from gpufc.protocol import Generate
from gpufc.sampling import SamplingParams
from supervisor.cli import cli
from supervisor.fleet.crash_record import BlackBox, CrashRecord
from supervisor.fleet.crash_store import CrashStore
from supervisor.fleet.exit_reason import ExitReason, Reason


@pytest.fixture
def record(tmp_path: Path) -> CrashRecord:
    box = BlackBox(0.0, 1_700_000_000.0, ModelConfig())
    box.pid = 4321
    box.sample_memory(1.0, 50 << 20)
    sampling = SamplingParams(seed=5, temperature=0.0)
    box.batch.given(Generate(Epoch(7), RequestNo(3), RequestId("cmpl-9"), 0, (1, 2), sampling))
    end = ExitReason(signal=11, reason=Reason.CRASHED, at=1_700_000_090.0)
    made = box.record(
        end,
        90.0,
        b"one\nlast line\n\x1b[31mred\n",
        worker=WorkerName("default-0"),
        epoch=Epoch(7),
        model="m",
    )
    CrashStore(tmp_path).write(made)
    return made


def run(*arguments: str, folder: Path) -> str:
    result = CliRunner().invoke(cli, ["crashes", *arguments, "--runtime-dir", str(folder)])
    return result.output


def test_without_a_death_the_list_says_so(tmp_path: Path) -> None:
    assert "no worker has died" in run("list", folder=tmp_path)


def test_the_list_names_each_record_and_how_to_see_it(tmp_path: Path, record: CrashRecord) -> None:
    output = run("list", folder=tmp_path)
    for words in (record.id, "crashed (signal 11)", "crashes show"):
        assert words in output


@pytest.mark.parametrize("which", [[], ["latest"], ["ID"]])
def test_show_tells_reason_memory_and_last_lines(
    tmp_path: Path, record: CrashRecord, which: list[str]
) -> None:
    which = [record.id if word == "ID" else word for word in which]
    output = run("show", *which, folder=tmp_path)
    sequence = "3: cmpl-9, prompt of 2 tokens, 0 generated before; seed 5, temperature 0.0"
    for words in (
        "epoch 7, pid 4321",
        "crashed (signal 11)",
        "50.0 MiB",
        "last line",
        sequence,
        r"\x1b[31mred",
    ):
        assert words in output


def test_json_is_the_whole_record(tmp_path: Path, record: CrashRecord) -> None:
    shown = json.loads(run("show", record.id, "--json", folder=tmp_path))
    assert shown["epoch"] == 7
    assert set(shown) == set(msgspec.to_builtins(record))
    assert json.loads(run("list", "--json", folder=tmp_path))[0]["id"] == record.id


@pytest.mark.parametrize("wrong", ["nonsense", "../../etc/passwd", "1-default-0-9"])
def test_an_unknown_record_is_one_line_and_exit_code_2(tmp_path: Path, wrong: str) -> None:
    result = CliRunner().invoke(cli, ["crashes", "show", wrong, "--runtime-dir", str(tmp_path)])
    assert result.exit_code == 2
    assert "crashes list" in result.output
    assert len(result.output.strip().splitlines()) == 1
