"""What AIPerf is asked for, and what is read from its export. It is not installed with gpufc."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from supervisor.bench.client import Target
from tests.bench import aiperf
from tests.bench.command import main
from tests.bench.scenarios import RATE, SCENARIOS


def test_its_figures_have_the_names_of_our_own() -> None:
    exported = {
        "output_token_throughput": {"unit": "tokens/sec", "avg": 61.5},
        "time_to_first_token": {"unit": "ms", "p50": 150.0, "p99": 180.0, "max": 181.0},
        "inter_chunk_latency": {"unit": "ms", "p50": 15.0, "p99": 24.0, "max": 90.0},
    }
    assert aiperf.metrics(exported) == {
        RATE: 61.5,
        "first_token_p50_ms": 150.0,
        "first_token_p99_ms": 180.0,
        "first_token_max_ms": 181.0,
        "gap_p50_ms": 15.0,
        "gap_p99_ms": 24.0,
        "gap_max_ms": 90.0,
        "failed": 0.0,
    }


def test_no_prompt_is_asked_twice(tmp_path: Path) -> None:
    scenario = SCENARIOS["short8"]
    target = Target(url="http://127.0.0.1:1", model="demo")
    words = aiperf.arguments(target, scenario.workload, scenario.bounds, tmp_path)
    asked = dict(pairwise(words))
    n_sent = int(asked["--request-count"]) + int(asked["--warmup-request-count"])
    assert int(asked["--num-dataset-entries"]) == n_sent


def test_the_vocabulary_is_written_as_its_tokenizer_reads_it(
    model_path: Path, tmp_path: Path
) -> None:
    aiperf.write_tokenizer(model_path, tmp_path / "tokenizer")
    written = json.loads((tmp_path / "tokenizer" / "tokenizer.json").read_text())
    assert written["model"]["vocab"]["Ġthe"] == 260
    assert "<|im_start|>" in [token["content"] for token in written["added_tokens"]]


def test_it_plays_plain_scenarios_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "aiperf"
    program.touch(mode=0o755)
    assert main(["--scenario", "guided1", "--alone", "--aiperf", str(program)]) == 2
    assert "plain scenarios only" in capsys.readouterr().err
