"""`doctor`: its findings, its advice and its exit code."""

import json
import signal
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from gpufc import settings
from gpufc.config import KvType, ModelConfig
from supervisor.cli import cli, doctor, findings, preflight
from supervisor.cli.findings import Level
from supervisor.plugins import template
from tests.supervisor.cli import files
from tests.supervisor.control.fake_front import document

ENGINE = {
    "version": "0.3.36",
    "system_info": "CPU : AVX = 1 |",
    "supports_gpu": False,
    "devices": [
        {"name": "CPU", "description": "A processor", "kind": "cpu",
         "memory_free_bytes": 1 << 30, "memory_total_bytes": 2 << 30}
    ],
}  # fmt: skip
MODEL = {
    "architecture": "llama", "name": "Tiny", "n_ctx_train": 2_000_000, "file_bytes": 100 << 20,
    "cell_bytes": 1000,
}  # fmt: skip


def report(**changes: Any) -> dict[str, Any]:
    return {"llama_cpp": ENGINE, "available_bytes": 4 << 30, "model": MODEL} | changes


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the probe will say: may be changed by the test."""
    said = report()
    monkeypatch.setattr(doctor, "probe", lambda *_: said)
    return said


def examine(tmp_path: Path, *args: str) -> tuple[int, list[dict[str, str]]]:
    model = files.gguf(tmp_path / "good.gguf")
    folder = f"--runtime-dir={tmp_path / 'run'}"
    command = ["doctor", "--json", "--port=0", folder, f"--model-path={model}", *args]
    result = CliRunner().invoke(cli, command)
    return result.exit_code, json.loads(result.stdout)


def bad(found: list[dict[str, str]]) -> list[str]:
    return [finding["subject"] for finding in found if finding["level"] == "bad"]


def test_all_well(probed: dict[str, Any], tmp_path: Path) -> None:
    code, found = examine(tmp_path)
    assert (code, bad(found)) == (0, [])
    subjects = {finding["subject"] for finding in found}
    assert {"Python", "libraries", "llama.cpp", "ggml device", "model", "memory"} <= subjects
    assert {"runtime folder", "port", "open files", "disk"} <= subjects


def test_a_wrong_model_path_is_a_wrong_configuration(
    probed: dict[str, Any], tmp_path: Path
) -> None:
    code, found = examine(tmp_path, "--model-path", str(tmp_path / "none.gguf"))
    assert (code, bad(found)) == (2, ["configuration"])


def test_a_plugin_that_cannot_be_loaded(probed: dict[str, Any], tmp_path: Path) -> None:
    good, broken, config = (tmp_path / name for name in ("good.py", "broken.py", "my.toml"))
    good.write_text(Path(template.__file__).read_text())
    broken.write_text("x = (")
    config.write_text(f'plugins = ["{good}", "{broken}"]')
    code, found = examine(tmp_path, f"--config={config}")
    assert (code, bad(found)) == (2, ["plugin"])
    fine, wrong = (one["text"] for one in found if one["subject"] == "plugin")
    assert fine == f"{good}: before_admission, on_delta"
    assert wrong.startswith(f"{broken} cannot be loaded: SyntaxError: '(' was never closed")


def test_what_a_start_would_note_is_a_warning(probed: dict[str, Any], tmp_path: Path) -> None:
    code, found = examine(tmp_path, "--host", "0.0.0.0", "--insecure")
    assert (code, bad(found)) == (0, [])
    warned = [each["subject"] for each in found if each["level"] == "warn"]
    assert "configuration" in warned


def test_a_taken_port(probed: dict[str, Any], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, found = examine(tmp_path, "--port", str(taken.getsockname()[1]))
    assert (code, bad(found)) == (3, ["port"])


def test_half_a_model(probed: dict[str, Any], tmp_path: Path) -> None:
    probed["model"] = {"error": "cut off"}
    code, found = examine(tmp_path)
    assert (code, bad(found)) == (2, ["model"])


def test_an_engine_that_does_not_load(probed: dict[str, Any], tmp_path: Path) -> None:
    probed["llama_cpp"] = {"error": "libcuda.so.1 is missing"}
    code, found = examine(tmp_path)
    assert (code, bad(found)) == (3, ["llama.cpp"])


def test_people_get_lines_with_advice_and_a_verdict(probed: dict[str, Any], tmp_path: Path) -> None:
    probed["model"] = MODEL | {"n_ctx_train": 2048}
    model = files.gguf(tmp_path / "good.gguf")
    command = ["doctor", "--port=0", f"--runtime-dir={tmp_path}/run", f"--model-path={model}"]
    result = CliRunner().invoke(cli, command, env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert "→ --n-ctx 2048" in result.stdout
    assert result.stdout.splitlines()[-1] == "`start` will work."


def memory(n_ctx: int, **changes: Any) -> findings.Finding:
    config = ModelConfig(n_ctx=n_ctx)
    (finding,) = findings.memory(MODEL, report(**changes), config)
    return finding


def test_memory_that_suffices() -> None:
    assert memory(4096).level is Level.OK


def test_a_limit_of_each_gpu_bounds_what_can_be_used() -> None:
    gpus = [{"kind": "gpu", "memory_free_bytes": 8 << 30}] * 2
    document = report(llama_cpp=ENGINE | {"devices": gpus})
    config = ModelConfig(n_ctx=4096)

    def told(limit: int | None) -> findings.Finding:
        (finding,) = findings.memory(MODEL, document, config, limit)
        return finding

    assert told(None).level is told(4 << 30).level is Level.OK
    assert "of GPU memory" in told(4 << 30).text
    assert told(25 << 20).level is Level.WARN
    assert "of host memory" in told(0).text


def test_a_context_too_large_names_one_that_fits() -> None:
    finding = memory(1_000_000, available_bytes=500 << 20)
    assert (finding.level, finding.advice) == (Level.BAD, "--n-ctx 366848")


def test_no_more_context_is_counted_than_the_model_gives() -> None:
    assert memory(16_000_000, model=MODEL).level is Level.OK


def test_features_that_were_compiled_in() -> None:
    found = list(findings.engine(ENGINE | {"system_info": "CPU : AVX = 1 | FMA = 0 | T = 4 |"}))
    assert found[1].text == "CPU: AVX, T 4"


def test_weights_too_large_for_the_machine() -> None:
    finding = memory(4096, available_bytes=50 << 20)
    assert finding.level is Level.BAD
    assert "smaller model" in finding.advice


@pytest.mark.parametrize(
    ("n_ctx", "free", "kept"),
    [(1_000_000, 500 << 20, "--n-ctx"), (4096, 50 << 20, "smaller model")],
)
def test_layers_that_a_gpu_cannot_hold_stay_on_the_host(n_ctx: int, free: int, kept: str) -> None:
    gpu = {"kind": "gpu", "memory_free_bytes": free}
    finding = memory(n_ctx, llama_cpp=ENGINE | {"devices": [gpu]})
    assert finding.level is Level.WARN
    assert finding.advice.startswith("not all layers will be on the GPU; ")
    assert kept in finding.advice


def test_the_probe_counts_cells_of_the_types_that_are_configured(model_path: Path) -> None:
    of_types = [
        ModelConfig(model_path=str(model_path), cache_type_k=kind, cache_type_v=kind)
        for kind in (KvType.F16, KvType.Q8_0)
    ]
    plain, packed = (doctor.probe(config)["model"]["cell_bytes"] for config in of_types)
    assert packed == plain * 34 // 64


def test_the_probe_tries_the_template_that_is_configured(model_path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jinja"
    broken.write_text("{% for message in messages %}")
    own, another = (
        doctor.probe(ModelConfig(model_path=str(model_path), chat_template=template))["model"]
        for template in (None, str(broken))
    )
    assert own["template_error"] == ""
    assert "chat template" in another["template_error"]


def test_a_template_that_cannot_be_used_is_worth_a_warning() -> None:
    facts = MODEL | {"template_error": "it does not compile"}
    (_, finding) = findings.model(facts, 100)
    assert (finding.level, finding.subject) == (Level.WARN, "chat template")
    assert "it does not compile" in finding.text
    assert len(list(findings.model(MODEL | {"template_error": ""}, 100))) == 1


def test_a_vocabulary_that_crashes_the_probe_leaves_its_other_findings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subprocess, "run", ended(-signal.SIGABRT, json.dumps(report()) + "\n"))
    assert doctor.probe(ModelConfig(model_path="/m.gguf")) == report()


def test_a_gpu_that_llama_cpp_cannot_use_is_worth_a_warning() -> None:
    from supervisor.devices.snapshot import Device

    device = Device(index=0, name="NVIDIA", kind="cuda", memory_total_bytes=1 << 30)
    found = list(findings.gpu((device,), "", supports_gpu=False))
    assert [finding.level for finding in found] == [Level.OK, Level.WARN]
    assert "GGML_CUDA" in found[1].advice


def ended(code: int, stdout: str = "", stderr: str = "") -> Any:
    return lambda *_, **__: subprocess.CompletedProcess([], code, stdout, stderr)


def test_a_probe_that_crashes_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", ended(-signal.SIGILL))
    assert "SIGILL" in doctor.probe(ModelConfig())["llama_cpp"]["error"]


def test_a_probe_that_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("probe", 60)

    monkeypatch.setattr(subprocess, "run", hang)
    assert "did not answer" in doctor.probe(ModelConfig())["llama_cpp"]["error"]


def test_the_real_probe_looks_into_the_file(tmp_path: Path) -> None:
    path = files.safetensors(tmp_path / "model.gguf")
    said = doctor.probe(ModelConfig(model_path=str(path)))
    assert "error" in said["model"]
    assert said["available_bytes"] > 0


def test_every_finding_is_made_from_settings_that_start_would_use(
    probed: dict[str, Any], tmp_path: Path
) -> None:
    flags = {"port": "0", "runtime_dir": str(tmp_path / "run"), "n_ctx": "9999"}
    given = settings.resolve(flags=flags, environ={}, file=None)
    texts = [finding.text for finding in doctor.examine(given)]
    assert any("9,999" in text for text in texts)


def cells(n_ctx: int, kv_cells: int, room: int) -> findings.Finding:
    """The finding for memory for `room` cells in addition to the weights."""
    config = ModelConfig(n_ctx=n_ctx, kv_cells=kv_cells)
    facts: dict[str, Any] = MODEL
    available = (facts["file_bytes"] + room * facts["cell_bytes"]) / findings.CPU_SHARE + 1
    (finding,) = findings.memory(facts, report(available_bytes=available), config)
    return finding


def test_too_many_cells_name_their_own_key() -> None:
    assert cells(4096, 2_000_000, 100_000).advice.startswith("GPUFC_KV_CELLS=99840 at most")


def test_no_context_above_the_models_is_advised() -> None:
    facts = MODEL | {"n_ctx_train": 2048}
    config = ModelConfig(n_ctx=4096, kv_cells=200_000_000)
    (finding,) = findings.memory(facts, report(available_bytes=1 << 30), config)
    assert "n-ctx" not in finding.advice
    assert "GPUFC_KV_CELLS" in finding.advice


def test_where_not_even_the_context_fits_both_are_named() -> None:
    advice = cells(100_000, 2_000_000, 50_000).advice
    assert "--n-ctx 49920" in advice
    assert "no GPUFC_KV_CELLS" in advice


def test_a_front_that_runs_here_and_is_well_is_one_finding(
    probed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_status", lambda _: document())
    code, found = examine(tmp_path, "--port", "8082")
    assert (code, bad(found)) == (0, [])
    (running,) = [finding for finding in found if finding["subject"] == "running"]
    assert "already running here: pid" in running["text"]
    assert "http://127.0.0.1:8082; nothing to do" in running["text"]
    assert not {"port", "runtime folder"} & {finding["subject"] for finding in found}


@pytest.mark.parametrize(
    ("condition", "port"), [({"status": "failed", "detail": ""}, 8082), ({"status": "ok"}, 8083)]
)
def test_a_front_that_is_not_well_or_elsewhere_is_told_in_full(
    condition: dict[str, str], port: int
) -> None:
    status = document()
    status["front"]["condition"] = condition
    assert findings.running(status, port) is None


def test_the_name_of_the_ports_owner_is_whole() -> None:
    process: Any = SimpleNamespace(
        name=lambda: "gpufc-superviso",
        cmdline=lambda: ["/x/python", "/x/bin/gpufc-supervisor", "start"],
    )
    assert preflight.name_of(process) == "gpufc-supervisor"
