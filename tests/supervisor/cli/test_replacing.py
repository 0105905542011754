"""`restart` and `swap`: their progress, their last line and their exit code."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gpufc.errors import EngineUnavailable, Overloaded, RequestError, SwapRefused
from supervisor.cli import cli, replacement_view
from supervisor.cli.errors import reported
from supervisor.cli.replacement_view import show
from supervisor.control.client import ControlClient, NotRunning
from supervisor.fleet.port import ModelChange
from tests.supervisor.cli.files import Screen, gguf
from tests.supervisor.control.control_server import Server

READY = {"event": "progress", "worker": "w", "stage": "ready", "fraction": 1.0, "detail": ""}


def run(server: Server, *command: str) -> Result:
    _, path, _ = server
    return CliRunner().invoke(cli, [*command, "--runtime-dir", str(path.parent)])


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(gguf(tmp_path / "m.gguf"))


def test_restart_shows_progress_and_the_new_worker(server: Server) -> None:
    result = run(server, "restart")
    assert result.exit_code == 0
    assert result.stdout == "default-0 is ready: pid 12, epoch 2\n"
    assert "restart: 50%" in result.stderr


def test_swap_says_which_file_serves(server: Server, model: str) -> None:
    front, _, _ = server
    result = run(server, "swap", model, "--name", "it", "--n-ctx", "512", "--n-gpu-layers", "3")
    assert (result.exit_code, result.stdout) == (
        0,
        "default-0 serves m.gguf: pid 12, epoch 2\n",
    )
    assert front.swaps == [("it", ModelChange(model_path=model, n_ctx=512, n_gpu_layers=3))]


@pytest.mark.parametrize(
    ("command", "error", "code"),
    [
        ("restart", EngineUnavailable("it died"), 3),
        ("restart", Overloaded("it is being replaced"), 5),
        ("swap", SwapRefused("it is cut off; the model before goes on serving"), 5),
        ("swap", Overloaded("it is being replaced"), 5),
        ("swap", EngineUnavailable("it died"), 5),
    ],
)
def test_a_failure_is_one_line_with_its_exit_code(
    server: Server, model: str, command: str, error: RequestError, code: int
) -> None:
    front, _, _ = server
    front.fails = error
    result = run(server, command, *([model] if command == "swap" else []))
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == f"error: {error}"


def test_swap_to_a_missing_file_does_not_reach_the_front(server: Server) -> None:
    front, _, _ = server
    result = run(server, "swap", "/no/such.gguf")
    assert (result.exit_code, front.swaps) == (2, [])
    assert "does not exist" in result.stderr


def test_a_relative_path_is_the_callers(
    server: Server, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    front, _, _ = server
    monkeypatch.chdir(Path(model).parent)
    assert run(server, "swap", "m.gguf").exit_code == 0
    assert front.swaps[0][1].model_path == model


def test_restart_of_an_unknown_worker_is_a_usage_error(server: Server) -> None:
    result = run(server, "restart", "absent")
    assert result.exit_code == 2
    assert "there is no worker 'absent'" in result.stderr


@pytest.mark.parametrize("command", ["restart", "swap", "upgrade", "stop"])
def test_without_a_front_they_say_that_nothing_runs(
    tmp_path: Path, model: str, command: str
) -> None:
    words = [command, *([model] if command == "swap" else []), "--runtime-dir", str(tmp_path)]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 4
    assert "nothing runs" in result.stderr


def test_drain_and_its_undo_fail_at_a_front_that_stops(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    front, _, _ = server
    front.request_stop()
    undone = run(server, "drain", "--undo")
    assert (undone.exit_code, undone.stderr) == (5, "error: the front is stopping\n")
    left = {"event": "draining", "running": 1, "waiting": 0}
    monkeypatch.setattr(ControlClient, "drain", lambda *_: iter([left]))
    drained = run(server, "drain", "--wait")
    assert drained.exit_code == 5
    assert "ends before it is drained: 1 request running, 0 waiting" in drained.stderr


def test_a_front_that_goes_away_in_the_middle_is_no_success() -> None:
    with pytest.raises(NotRunning, match="the front ended before the swap was done"):
        show([READY], "swap")


def test_of_several_workers_each_is_named_once() -> None:
    events: list[dict[str, Any]] = [
        READY,
        {**READY, "worker": "v", "stage": "loading"},
        READY,
        {**READY, "worker": "v"},
        {"event": "done"},
    ]
    assert [ready["worker"] for ready in show(events, "restart")] == ["w", "v"]


def test_a_terminal_sees_one_line_that_is_cleared_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    stages = [
        {**READY, "stage": "loading", "fraction": 0.5},
        {**READY, "stage": "trying"},
        {**READY, "stage": "stopping", "detail": "there is not room for both"},
    ]
    show([*stages, READY, {"event": "done"}], "swap")
    shown = screen.getvalue()
    assert "\n" not in shown
    assert "50%" in shown
    assert "the old worker ends first, streams wait (there is not room for both)" in shown
    assert shown.endswith("\r\x1b[K")


def test_ctrl_c_ends_the_showing_and_says_that_the_work_goes_on(
    server: Server, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    front, path, _ = server
    front.goes_on = asyncio.Event()

    def interrupted(events: Iterator[Any], what: str) -> Any:
        next(events)
        raise KeyboardInterrupt

    monkeypatch.setattr(replacement_view, "show", interrupted)
    for words in (["swap", model], ["restart"]):
        words = [*words, "--runtime-dir", str(path.parent)]
        code = reported(lambda words=words: cli.main(words, standalone_mode=False), words)
        assert code == 130
        assert f"The {words[0]} goes on; `status` shows it." in capsys.readouterr().err
    assert front.replacing is not None
    assert not front.replacing.task.done()
    front.replacing.task.get_loop().call_soon_threadsafe(front.goes_on.set)
