"""Client and server over a real unix socket."""

import asyncio
import itertools
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from gpufc.errors import ConfigError, EngineUnavailable, SwapRefused
from supervisor.control import client, lines
from supervisor.control.client import ControlClient, NotRunning
from supervisor.fleet.port import ModelChange
from supervisor.runtime_dir import RuntimeDir
from tests.service import wait_for
from tests.supervisor.control.control_server import Server


def test_the_socket_is_the_owners_alone(server: Server) -> None:
    _, path, _ = server
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_status_is_the_fronts_document(server: Server) -> None:
    front, path, _ = server
    assert ControlClient(path).status() == front.status()


def test_config_has_values_and_sources(server: Server) -> None:
    _, path, _ = server
    rows = {row["key"]: row for row in ControlClient(path).config()}
    assert rows["port"] == {"key": "port", "value": 9000, "source": "flag --port", "model": None}
    assert rows["host"]["source"] == "default"


def test_stop_counts_running_requests_until_the_front_has_ended(server: Server) -> None:
    front, path, end = server
    events = ControlClient(path).stop(now=False)
    assert next(events) == {"event": "draining", "running": 2, "waiting": 1}
    front.running = 1
    assert next(event["running"] for event in events if event["running"] != 2) == 1
    threading.Thread(target=end).start()
    assert all(event["event"] == "draining" for event in events)
    assert front.stops == [False]


def test_stop_now_says_so(server: Server) -> None:
    front, path, _ = server
    next(ControlClient(path).stop(now=True))
    assert front.stops == [True]


def test_drain_counts_running_requests_until_none_is_left(server: Server) -> None:
    front, path, _ = server
    events = ControlClient(path).drain(lead_s=2.0, wait=True)
    assert next(events) == {"event": "draining", "running": 2, "waiting": 1}
    front.running = 0
    assert list(events)[-1] == {"event": "done", "running": 0, "waiting": 1}
    assert front.drains == [2.0]
    ControlClient(path).undrain()
    assert front.drains == []


def test_drain_returns_at_once_if_it_is_not_to_wait(server: Server) -> None:
    _, path, _ = server
    *said, last = ControlClient(path).drain(lead_s=0.0, wait=False)
    assert [event["running"] for event in said] == [2]
    assert last == {"event": "done", "running": 2, "waiting": 1}


def test_the_end_of_a_drain_does_not_repeat_an_earlier_look(server: Server) -> None:
    """Requests may all end while a line is sent to a slow client."""
    front, path, _ = server
    front.end_unseen = True
    *said, last = ControlClient(path).drain(lead_s=0.0, wait=True)
    assert [event["running"] for event in said] == [2]
    assert last == {"event": "done", "running": 0, "waiting": 1}


def test_restart_tells_how_it_gets_on_and_the_new_epoch(server: Server) -> None:
    front, path, _ = server
    *told, last = list(ControlClient(path).restart("default-0", now=True))
    assert last == {"event": "done"}
    assert told[-1]["stage"] == "ready"
    assert (told[-1]["worker"], told[-1]["epoch"], told[-1]["pid"]) == ("default-0", 2, 12)
    assert front.restarts == [("default-0", True)]


def test_restart_that_fails_ends_with_the_reason(server: Server) -> None:
    front, path, _ = server
    front.fails = EngineUnavailable("the model is gone")
    last = list(ControlClient(path).restart(None, now=False))[-1]
    assert (last["event"], last["message"]) == ("failed", "the model is gone")


def test_swap_passes_its_change_on_and_reports_its_end(server: Server) -> None:
    front, path, _ = server
    assert list(ControlClient(path).swap("/m.gguf", "it", 512, None))[-1] == {"event": "done"}
    assert front.swaps == [("it", ModelChange(model_path="/m.gguf", n_ctx=512))]
    front.fails = SwapRefused("no")
    last = list(ControlClient(path).swap("/m.gguf", None, None, 3))[-1]
    assert (last["event"], last["code"]) == ("failed", "swap_refused")


def test_a_front_that_is_long_at_it_is_not_taken_for_dead(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    front, path, _ = server
    assert lines.REPEAT_S * 4 < client.TIMEOUT_S  # the silence after which a front counts as dead
    monkeypatch.setattr(lines, "REPEAT_S", 0.05)
    front.goes_on = asyncio.Event()
    events = ControlClient(path).swap("/m.gguf", None, None, None)
    stages = [event["stage"] for event in itertools.islice(events, 10)]
    assert stages[-5:] == ["trying"] * 5
    events.close()


def test_a_client_that_hangs_up_stops_nothing(server: Server) -> None:
    front, path, _ = server
    front.goes_on = asyncio.Event()
    events = ControlClient(path).swap("/m.gguf", None, None, None)
    next(events)
    events.close()
    assert front.replacing is not None
    loop = front.replacing.task.get_loop()
    loop.call_soon_threadsafe(front.goes_on.set)
    wait_for(front.replacing.task.done)
    assert not front.replacing.task.cancelled()


def test_a_replacement_that_a_stop_breaks_off_has_an_end(server: Server) -> None:
    front, path, _ = server
    front.goes_on = asyncio.Event()
    events = ControlClient(path).swap("/m.gguf", None, None, None)
    next(events)
    assert front.replacing is not None
    loop = front.replacing.task.get_loop()
    loop.call_soon_threadsafe(front.replacing.task.cancel)
    assert list(events)[-1] == {
        "event": "failed",
        "message": "swap: the server is stopping",
        "code": "overloaded",
    }


def test_an_unknown_worker_is_the_operators_mistake(server: Server) -> None:
    _, path, _ = server
    with pytest.raises(ConfigError, match="no worker 'absent'"):
        list(ControlClient(path).restart("absent", now=False))


def test_without_a_socket_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match=r"nothing runs in .* start --runtime-dir \S+` starts it"):
        ControlClient(tmp_path / "control.sock").status()


def test_a_socket_that_a_killed_front_left_means_nothing_runs(server: Server) -> None:
    _, path, end = server
    left = path.with_name("left.sock")
    path.rename(left)
    end()
    with pytest.raises(NotRunning, match="nothing runs"):
        ControlClient(left).status()


@pytest.mark.parametrize(
    ("age_s", "words"),
    [(60, r"pid \d+\) runs in .* is gone; end it with `kill \d+`"), (0, "just st")],
)
def test_a_front_whose_socket_is_gone_is_told_from_none(
    tmp_path: Path, age_s: int, words: str
) -> None:
    folder = RuntimeDir.acquire(str(tmp_path))
    taken = time.time() - age_s
    os.utime(tmp_path / "front.lock", (taken, taken))
    with pytest.raises(NotRunning, match=words):
        ControlClient(folder.control_socket).status()
    folder.cleanup()
    with pytest.raises(NotRunning, match="nothing runs"):
        ControlClient(folder.control_socket).status()
