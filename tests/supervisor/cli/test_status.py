"""`status` and `models`: a document on wide and narrow terminals."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from supervisor.cli import cli, status, stop
from supervisor.cli.status_view import render
from supervisor.cli.terminal import Progress
from supervisor.control.client import ControlClient
from tests.supervisor.cli.files import Screen
from tests.supervisor.control.control_server import Server
from tests.supervisor.control.fake_front import document, worker

LAST_EXIT = {"signal": 9, "code": None, "reason": "killed", "at": 0.0}
GPU = {
    "index": 0, "name": "NVIDIA H100", "kind": "cuda", "utilization": 0.5,
    "memory_used_bytes": 1 << 30, "memory_total_bytes": 80 << 30, "temperature_celsius": 45.0,
    "power_watts": 300.0, "power_limit_watts": 700.0,
}  # fmt: skip


def shown(width: int, **changes: Any) -> list[str]:
    return [click.unstyle(line) for line in render(document(**changes), width)]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    rows = [worker(last_exit=LAST_EXIT, restarts=120), worker(name="default-1", state="failed")]
    latency = {
        name: {"p50": 0.1234, "p99": 1.2345}
        for name in ("time_to_first_token_seconds", "inter_token_seconds", "request_seconds")
    }
    lines = shown(width, workers=rows, devices=[GPU], latency=latency)
    assert max(len(line) for line in lines) <= width


def machine(**changes: Any) -> dict[str, Any]:
    made = {
        "machine": "node-a", "state": "joined", "detail": "", "workers": ["m-0"], "max_workers": 2,
        "cores": 16, "memory_bytes": 64 << 30, "devices": ["NVIDIA H200"] * 8, "version": "1",
        "heard_at": None, "n_losses": 0,
    }  # fmt: skip
    return made | changes


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_machine_that_gets_no_worker_has_a_line_with_the_reason(width: int) -> None:
    lost = machine(machine="node-b", state="lost", detail="silent for 5.2 s", workers=[])
    lines = shown(width, hosts=[machine(), lost])
    start = next(n for n, line in enumerate(lines) if line.startswith("MACHINE"))
    assert lines[start + 1].split()[:5] == ["node-a", "joined", "1", "of", "2"]
    assert lines[start + 2].split()[:5] == ["node-b", "lost", "0", "of", "2"]
    assert lines[start + 3] == "  node-b: silent for 5.2 s"
    assert "8 × NVIDIA H200" in lines[start + 1]
    assert max(len(line) for line in lines) <= width


def test_a_machines_reason_cannot_steer_the_terminal() -> None:
    lines = shown(80, hosts=[machine(detail="\x1b[2Jgone")])
    assert "  node-a: \\x1b[2Jgone" in lines


def test_a_worker_that_waits_for_a_machine_is_on_none() -> None:
    rows = [
        worker(name="m-0", machine="node-a"),
        worker(name="m-1", state="placing", pid=None),
        worker(name="m-2"),
    ]
    lines = [line.split() for line in shown(200, workers=rows)]
    machines = {line[0]: line[1] for line in lines if line and line[0].startswith("m-")}
    assert machines == {"m-0": "node-a", "m-1": "-", "m-2": "here"}


def plugin(name: str, **changes: Any) -> dict[str, Any]:
    counts = {"calls": 1200, "failures": 0, "restarts": 0} | changes.pop("counts", {})
    made = {"name": name, "is_ready": True, "detail": "", "counts": counts, "policy": None}
    return made | changes


def test_plugins_that_fail_have_a_line_with_the_reason() -> None:
    assert "plugins   2 of 2 ready, 2,400 calls" in shown(80, plugins=[plugin("a"), plugin("b")])
    assert not [line for line in shown(80) if line.startswith("plugins")]
    ended = plugin("a", is_ready=False, detail="\x1bno", counts={"failures": 3, "restarts": 2})
    policy = plugin("b", policy={"is_off": True, "failed": 4})
    lines = shown(80, plugins=[ended, policy])
    start = lines.index("plugins   1 of 2 ready, 2,400 calls")
    assert lines[start + 1 : start + 3] == [
        "  a: not ready (\\x1bno), 3 failed calls, started again 2 times",
        "  b: not asked for a while, 4 failed choices",
    ]


def columns_at(width: int) -> set[str]:
    lines = shown(width)
    return set(lines[lines.index("") + 1].split())


def test_a_narrow_terminal_keeps_the_important_columns() -> None:
    assert {"WORKER", "STATE", "MODEL", "RUNNING", "LAST"} <= columns_at(80)


def test_where_a_wide_column_gave_way_narrow_ones_come_back() -> None:
    assert "MODEL" not in columns_at(72)
    assert {"WORKER", "STATE", "RESTARTS", "MEMORY"} <= columns_at(72)


def test_why_it_is_not_ready_is_said() -> None:
    front = document()["front"] | {"condition": {"status": "failed", "detail": "no such file"}}
    text = "\n".join(shown(100, front=front))
    assert "failed" in text
    assert "no such file" in text


@pytest.mark.parametrize(
    ("durable", "line"),
    [
        (
            {"running": 3, "abandoned": 1, "finished": 20, "bytes": 3 << 20},
            "durable   3 running or waiting (1 without a client), 20 finished and kept, 3.0 MiB",
        ),
        (
            {"running": 0, "abandoned": 0, "finished": 1, "bytes": 1 << 20},
            "durable   0 running or waiting, 1 finished and kept, 1.0 MiB",
        ),
    ],
)
def test_durable_requests_are_shown(durable: dict[str, int], line: str) -> None:
    assert line in shown(80, durable=durable)


def test_without_durable_requests_there_is_no_line_about_them() -> None:
    none = {"running": 0, "abandoned": 0, "finished": 0, "bytes": 0}
    for lines in (shown(80, durable=none), shown(80)):
        assert not any(line.startswith("durable") for line in lines)


def test_an_alarm_is_told_with_its_kind() -> None:
    alarm = {"kind": "disk_full", "subject": "host", "text": "0.5 of 500 GiB are free", "since": 0}
    assert any(
        line.startswith("alarm     0.5 of 500 GiB are free (disk full, for ")
        for line in shown(100, alarms=[alarm])
    )


def test_devices_and_why_there_are_none() -> None:
    text = "\n".join(shown(100, devices=[GPU]))
    assert "NVIDIA H100, 50% busy, 1.0 GiB of 80.0 GiB, 45 °C, 300 of 700 W" in text
    assert "no NVIDIA driver" not in text, "another driver shows one"
    assert "no NVIDIA driver" in "\n".join(shown(100))
    assert "CPU (cpu): A processor" in text


def test_figures_that_a_driver_does_not_tell_are_left_out() -> None:
    silent = {name: None for name in GPU} | {"index": 0, "name": "Quiet", "kind": "cuda"}
    assert any(line == "cuda 0    Quiet" for line in shown(100, devices=[silent]))


def test_json_is_the_document(server: Server) -> None:
    front, path, _ = server
    result = CliRunner().invoke(cli, ["status", "--json", "--runtime-dir", str(path.parent)])
    assert json.loads(result.stdout) == front.status()


def test_models(server: Server) -> None:
    _, path, _ = server
    result = CliRunner().invoke(cli, ["models", "--runtime-dir", str(path.parent)])
    assert "SmolLM2-135M-Instruct.Q4_1  ready" in result.stdout


def test_a_front_that_has_no_status_yet_is_not_running(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path, end = server
    end()
    assert ControlClient(path).path == path
    result = CliRunner().invoke(cli, ["status", "--runtime-dir", str(path.parent)])
    assert result.exit_code == 4


@pytest.mark.parametrize("how", [["--watch"], ["--watch", "--json"]])
def test_ctrl_c_is_the_normal_end_of_watching(
    server: Server, monkeypatch: pytest.MonkeyPatch, how: list[str]
) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    _, path, _ = server
    monkeypatch.setattr(status, "time", SimpleNamespace(sleep=interrupted))
    result = CliRunner().invoke(cli, ["status", *how, "--runtime-dir", str(path.parent)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert "default-0" in result.stdout


def test_q_ends_watching_at_a_terminal(
    typing: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    typing("q")
    status._watch(document)
    shown = capsys.readouterr().out
    assert "q ends this view" in shown
    assert shown.endswith("\x1b[?1049l"), "the screen that was there before is back"


def test_stop_says_how_long_it_may_take(server: Server) -> None:
    _, path, _ = server
    assert stop._drain_limit_s(ControlClient(path)) == 30.0
    terminal = Screen()
    Progress("stopping", terminal).note(stop.left(2, 0), 30.0)
    assert "stopping: 2 requests running, 0 waiting  0.0 s (at most 30 s)" in terminal.getvalue()
