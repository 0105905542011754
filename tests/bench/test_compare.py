"""Comparing servers: their order, the direction of metrics, their command lines."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from gpufc import settings
from gpufc.errors import StartError
from supervisor.bench.figures import figures
from tests.bench import batched, command, growth, options, side_by_side, table
from tests.bench.embedding import metrics as embedding_metrics
from tests.bench.guided import SHOWS as GUIDED
from tests.bench.intruder import Intrusion
from tests.bench.intruder import metrics as intruder_metrics
from tests.bench.results import Results
from tests.bench.rounds import Row, compare, order
from tests.bench.scenarios import SCENARIOS, metrics
from tests.bench.servers import Gpufc, LlamaServer, Setting, running
from tests.bench.side_by_side import quick
from tests.supervisor.bench.test_figures import outcome

ROOT = Path(__file__).parent.parent.parent

SETTING = Setting(model=Path("/m.gguf"), n_threads=3, n_ctx=100, slots=4)


def row(server: str, number: int, **values: float) -> Row:
    return Row(
        scenario="s", server=server, round=number, metrics=values, load_average=0.0,
        figures=figures([]),
    )  # fmt: skip


def test_the_order_alternates() -> None:
    assert list(order(["a", "b"], 3)) == [
        (0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b"),
    ]  # fmt: skip


def test_ratios_above_one_are_ours_whichever_way_the_metric_goes() -> None:
    rows = [
        *(row("ours", i, output_tokens_per_s=v, gap_ms=v) for i, v in enumerate([30, 20, 10])),
        *(row("peer", i, output_tokens_per_s=v, gap_ms=v) for i, v in enumerate([5, 10, 90])),
    ]
    rate, gap = compare(rows, "s", ["ours", "peer"])
    assert rate.ratio_spreads["peer"] == pytest.approx((1 / 9, 6.0))
    assert (rate.medians, rate.ratios) == ({"ours": 20, "peer": 10}, {"peer": 2.0})
    assert (gap.medians, gap.ratios) == ({"ours": 20, "peer": 10}, {"peer": 0.5})
    assert rate.spreads["peer"] == (5, 90)
    assert compare(rows, "another", ["ours", "peer"]) == []


def test_a_metric_of_one_server_gets_no_ratio() -> None:
    (found,) = compare([row("ours", 0, x_ms=1.0)], "s", ["ours", "peer"])
    assert found.ratios == {}
    text = "\n".join(table.lines([found], [], ["ours", "peer"]))
    assert "× peer" in text


def test_both_get_the_same_setting() -> None:
    ours, peer = Gpufc(keys={"replay": "exact"}), LlamaServer(program=Path("/ls"))
    words = " ".join(ours.command(SETTING, 1, Path("/f")))
    assert "--model-path /m.gguf --n-ctx 100 --max-concurrent-requests 4" in words
    assert ours.environ(SETTING) == {
        "GPUFC_N_THREADS": "3", "GPUFC_FLASH_ATTENTION": "auto", "GPUFC_REPLAY": "exact",
        "GPUFC_STANDBY": "none",
    }  # fmt: skip
    words = " ".join(peer.command(SETTING, 1, Path("/f")))
    assert "--ctx-size 400 --parallel 4 --threads 3 --flash-attn auto" in words
    assert "kv-unified" not in words


@pytest.mark.parametrize(
    ("unified", "option"), [(True, "--kv-unified"), (False, "--no-kv-unified")]
)
def test_the_layout_is_set_for_both_or_for_none(unified: bool, option: str) -> None:
    setting = Setting(model=Path("/m"), n_threads=1, n_ctx=100, unified=unified)
    assert Gpufc().environ(setting)["GPUFC_KV_UNIFIED"] == str(unified).lower()
    assert option in LlamaServer(program=Path("/ls")).command(setting, 1, Path("/f"))


def test_each_server_may_choose_its_threads() -> None:
    words = ["--own-threads", "--model", "/m.gguf"]
    chosen = options.setting(options.parser().parse_args(words))
    assert "GPUFC_N_THREADS" not in Gpufc().environ(chosen)
    assert "--threads" not in LlamaServer(program=Path("x")).command(chosen, 1, Path("/f"))
    assert chosen.threads == "own numbers of threads"


def test_a_turn_that_was_not_cached_is_seen() -> None:
    first, second, third = (outcome(0.0, 1.0, turn=turn) for turn in range(3))
    first.prompt_tokens = 100
    second.prompt_tokens, second.cached_tokens = 200, 110
    third.cached_tokens = 120
    assert metrics(figures([first, second, third]))["turns_not_cached"] == 1


def test_gaps_are_told_apart_by_the_intrusion() -> None:
    early = outcome(0.0, 1.0, 2.0, 3.0, 7.0, 8.0)
    late = outcome(0.0, 2.0, 2.5, 3.5, 6.0, 9.0, 9.5)
    found = intruder_metrics([early, late], Intrusion(3.6, 7.5))
    # since both run: 2-3, and 2-2.5, 2.5-3.5; 3-7, 7-8 and 3.5-6, 6-9 touch the intrusion
    assert found["calm_gap_max_ms"] == 1000
    assert found["calm_gap_p50_ms"] == 1000
    assert found["disturbed_gap_max_ms"] == 4000
    assert found["disturbed_gap_p50_ms"] == 2750
    assert found["intruder_first_token_ms"] == pytest.approx(3900)


def test_an_intrusion_after_the_end_disturbs_no_stream() -> None:
    found = intruder_metrics([outcome(0.0, 1.0, 2.0)], Intrusion(5.0, 6.0))
    assert "disturbed_gap_p99_ms" not in found


def test_the_batched_benchmark_gets_the_scenarios_sizes() -> None:
    cold = '{"pl": 16, "tg": 63, "speed_tg": 10.0, "t": 99.0}'
    warm = '{"pl": 16, "tg": 63, "speed_tg": 20.5, "t": 64.0, "x": 1}'
    assert batched.rates(f"noise\n{cold}\n{warm}\n") == batched.Rates(20.5, 16.0)
    assert batched.rates("noise") is None
    words = " ".join(batched.command(Path("/b"), SETTING, SCENARIOS["sixteen"]))
    assert f"--ctx-size {16 * (128 + 64)} --threads 3" in words
    assert "-npp 128 -ntg 63 -npl 16,16" in words


def test_the_reached_share_of_the_kernels_is_of_the_same_scenario() -> None:
    results = Results({}, {})
    rows = [row("gpufc", 0, output_tokens_per_s=30), row("peer", 0, output_tokens_per_s=20)]
    results.add(rows, compare(rows, "s", ["gpufc", "peer"]))
    rates = batched.Rates(60.0, 40.0)
    assert results.add_kernels("s", 8, rates).reached == batched.Rates(0.5, 0.75)
    assert results.add_kernels("another", 8, rates).reached is None


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_small_when_quick_and_shows_metrics_that_exist(name: str) -> None:
    scenario = quick(SCENARIOS[name])
    assert scenario.workload.output_tokens <= 16
    assert scenario.bounds.requests == scenario.bounds.streams <= scenario.slots
    run = [outcome(0.0, 1.0, 2.0), outcome(0.0, 1.5, 2.5, turn=1)]
    known = {
        *metrics(figures(run)),
        *intruder_metrics(run, Intrusion(0.5, 2.2)),
        *GUIDED,
        *embedding_metrics(run),
        "inputs_beside",
    }
    assert set(scenario.shows) <= known | {"calm_gap_p99_ms", "disturbed_to_calm"}


def test_variants_change_keys_of_the_configuration() -> None:
    for scenario in SCENARIOS.values():
        if scenario.variants is not None:
            key, values = scenario.variants
            for value in values:
                settings.resolve(flags={}, environ={f"GPUFC_{key.upper()}": value}, file=None)


@pytest.fixture
def peer(tmp_path: Path) -> Path:
    """A program like llama-server, with the fake server inside."""
    program = tmp_path / "llama-server"
    program.write_text(
        f"#!{sys.executable}\nimport sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.supervisor.bench.fake_openai import main; main()\n"
    )
    program.chmod(0o755)
    return program


def test_a_whole_comparison_with_real_processes(
    peer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out, drawing = tmp_path / "m.gguf", tmp_path / "out.json", tmp_path / "out.svg"
    model.write_bytes(b"GGUF\x03\0\0\0" + bytes(64))
    code = command.main(
        ["--quick", "--scenario", "multiturn", "--set", "backend=fake", "--model", str(model),
         "--llama-server", str(peer), "--json", str(out), "--plot", str(drawing),
         "--results", str(tmp_path / "RESULTS.md")]
    )  # fmt: skip
    shown = capsys.readouterr().out
    assert code == 0, shown
    assert "× llama-server" in shown
    assert "FAILED" not in shown
    read = json.loads(out.read_text())
    assert [entry["server"] for entry in read["rows"]] == ["gpufc", "llama-server"]
    assert all(entry["figures"]["succeeded"] == 16 for entry in read["rows"])
    assert read["conditions"]["cores"] >= 1
    assert "multiturn" in drawing.read_text()
    published = (tmp_path / "RESULTS.md").read_text()
    assert "## gpufc and llama-server on m.gguf, " in published
    assert "--results RESULTS.md`" in published
    assert "| multiturn | first_token_p50_ms | gpufc: " in published


def test_a_comparison_that_is_broken_off_publishes_its_finished_scenarios(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def carry_out(plan: side_by_side.Plan, servers: object, say: object) -> list[Row]:
        (scenario,) = plan.scenarios
        if scenario.name == "short4":
            raise KeyboardInterrupt
        found = row("gpufc", 0, output_tokens_per_s=7.0)
        return [msgspec.structs.replace(found, scenario=scenario.name)]

    monkeypatch.setattr(command, "carry_out", carry_out)
    results, model = tmp_path / "R.md", tmp_path / "m.gguf"
    model.touch()
    words = ["--alone", "--model", str(model), "--results", str(results)]
    assert command.main([*words, "--scenario", "short1", "--scenario", "short4"]) == 130
    said = results.read_text()
    assert "broken off" in said
    assert "| short1 | output_tokens_per_s | gpufc: 7" in said
    assert "| short4 |" not in said


@pytest.mark.slow
def test_the_front_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "front.json"
    published = tmp_path / "RESULTS.md"
    words = ["--front", "--quick", "--json", str(out), "--results", str(published)]
    assert command.main(words) == 0
    assert "| 4 streams | front CPU per token, µs | " in published.read_text()
    assert "added per token" in capsys.readouterr().out
    found = json.loads(out.read_text())["front"]
    assert found["costs"][0]["streams"] == 4
    assert found["costs"][0]["cpu_us_per_token"] > 0
    assert found["per_token_ms"]["engine_p50"] >= 20  # the scripted step
    assert 0 < found["refused_s"]["p50"] < 1


def test_growth_is_measured_in_front_and_worker(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "growth.json"
    published = tmp_path / "RESULTS.md"
    words = ["--growth", "320", "--json", str(out), "--results", str(published)]
    assert command.main(words) == 0
    assert "\n| front | 320 | " in published.read_text()
    assert "per 100,000" in capsys.readouterr().out
    found = json.loads(out.read_text())["growth"]
    assert found["requests"][-1] == 320
    assert min(found["front_bytes"] + found["workers_bytes"]) > 1 << 20


def test_growth_is_the_slope_after_warm_up() -> None:
    requests = [100 * (i + 1) for i in range(8)]
    assert growth.slope(requests, [0, 500, *(1000 + 7 * n for n in requests[2:])]) == 700_000


def test_when_it_is_told_to_end_no_server_stays(tmp_path: Path) -> None:
    words = ["--alone", "--scenario", "one", "--set", "backend=fake", "--rounds", "1000"]
    model = tmp_path / "m.gguf"
    model.write_bytes(b"GGUF\x03\0\0\0" + bytes(64))
    bench = subprocess.Popen(
        [sys.executable, "-m", "tests.bench", *words, "--model", str(model)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with bench:
        assert bench.stdout is not None
        assert any("round 1" in line for line in bench.stdout)
        own = psutil.Process(bench.pid)
        while len(servers := own.children(recursive=True)) < 2:  # a front and its worker
            time.sleep(0.01)
        bench.terminate()
        assert bench.wait(60) == 130
        _, alive = psutil.wait_procs(servers, timeout=30)
    assert alive == []


def test_a_server_that_does_not_come_up_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "llama-server"
    broken.write_text("#!/bin/sh\necho no such model; exit 1\n")
    broken.chmod(0o755)
    model = tmp_path / "m.gguf"
    model.write_bytes(b"GGUF\x03\0\0\0" + bytes(64))
    code = command.main(
        ["--quick", "--scenario", "one", "--set", "backend=fake", "--model", str(model),
         "--llama-server", str(broken)]
    )  # fmt: skip
    assert code == 3
    assert "no such model" in capsys.readouterr().err


def test_without_a_peer_it_says_how_to_build_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("LLAMA_SERVER", raising=False)
    assert command.main(["--scenario", "one", "--model", "/m.gguf"]) == 2
    assert "cmake --build" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--scenario", "nope"]])
def test_an_impossible_measurement_is_bad_usage(words: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        command.main(words)
    assert refused.value.code == 2


@pytest.mark.parametrize("entry", ["n_ctx", "nope=1"])
def test_set_takes_keys_of_the_configuration(
    entry: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--alone", "--scenario", "one", "--model", "/m.gguf", "--set", entry]
    assert command.main(words) == 2
    assert entry in capsys.readouterr().err


def test_the_other_value_of_a_key_is_a_server_of_its_own() -> None:
    words = ["--scenario", "one", "--model", "/m.gguf", "--set", "replicas=2"]
    given = options.parser().parse_args([*words, "--other", "replicas=1"])
    ours, other = options.servers(given, SCENARIOS["one"])
    setting = options.setting(given)
    assert (ours.name, other.name) == ("gpufc", "replicas=1")
    assert ours.environ(setting)["GPUFC_REPLICAS"] == "2"
    assert other.environ(setting)["GPUFC_REPLICAS"] == "1"


def test_another_checkout_runs_its_own_code_with_the_same_setting(tmp_path: Path) -> None:
    (tmp_path / "supervisor" / "cli").mkdir(parents=True)
    words = ["--scenario", "one", "--model", "/m.gguf", "--against", str(tmp_path)]
    given = options.parser().parse_args([*words, "--set", "kv_cells=512"])
    ours, before = options.servers(given, SCENARIOS["one"])
    setting = options.setting(given)
    assert (ours.name, before.name) == ("gpufc", "before")
    environ = before.environ(setting)
    assert environ.pop("PYTHONPATH").split(os.pathsep)[0] == str(tmp_path.resolve())
    assert environ.pop("PYTHONSAFEPATH") == "1"
    assert environ == ours.environ(setting)


def test_another_checkouts_code_goes_before_that_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    package = tmp_path / "supervisor" / "cli"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "__main__.py").write_text("raise SystemExit('this is the other checkout')")
    with (
        pytest.raises(StartError, match="this is the other checkout"),
        running(Gpufc(checkout=tmp_path), SETTING),
    ):
        pass


def test_a_folder_that_is_no_checkout_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--scenario", "one", "--model", "/m.gguf", "--against", str(tmp_path)]
    assert command.main(words) == 2
    assert "no checkout of gpufc" in capsys.readouterr().err


def test_the_list_describes_the_scenarios(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*SCENARIOS, "batched"))


def test_the_script_is_short_strict_and_readable_to_the_shell() -> None:
    script = ROOT / "scripts" / "bench"
    assert os.access(script, os.X_OK)
    assert "\nset -eu\n" in script.read_text()
    subprocess.run(["sh", "-n", script], check=True, timeout=30)
