"""The private folder of one front."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gpufc.errors import ConfigError, StartError
from gpufc.ids import WorkerName
from supervisor.fleet.refusal import is_by_system
from supervisor.runtime_dir import RuntimeDir


def test_it_is_made_private(tmp_path: Path) -> None:
    runtime = RuntimeDir.acquire(str(tmp_path / "new" / "r"))
    assert stat.S_IMODE(runtime.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(runtime.logs.stat().st_mode) == 0o700
    runtime.cleanup()


def test_a_second_front_is_told_the_firsts_pid(tmp_path: Path) -> None:
    first = RuntimeDir.acquire(str(tmp_path))
    with pytest.raises(StartError, match=rf"another front \(pid {os.getpid()}\) .* stop"):
        RuntimeDir.acquire(str(tmp_path))
    first.cleanup()
    RuntimeDir.acquire(str(tmp_path)).cleanup()


def test_find_reaches_a_running_front_and_only_that(tmp_path: Path) -> None:
    found = RuntimeDir.find(str(tmp_path / "r"))
    assert found.front_pid() is None
    assert not found.path.exists()
    runtime = RuntimeDir.acquire(str(tmp_path / "r"))
    assert found.front_pid() == os.getpid()
    assert found.control_socket == runtime.control_socket
    runtime.cleanup()
    runtime.cleanup()
    assert found.front_pid() is None


def test_a_killed_front_holds_nothing_and_its_sockets_are_swept(tmp_path: Path) -> None:
    code = (
        "import os, sys; from supervisor.runtime_dir import RuntimeDir; "
        "r = RuntimeDir.acquire(sys.argv[1]); r.new_socket().touch(); r.control_socket.touch(); "
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    found = RuntimeDir.find(str(tmp_path))
    assert found.front_pid() is None
    assert len(list(tmp_path.glob("*.sock"))) == 2
    runtime = RuntimeDir.acquire(str(tmp_path))
    assert list(tmp_path.glob("*.sock")) == []
    runtime.cleanup()


def test_cleanup_removes_sockets_and_keeps_logs(tmp_path: Path) -> None:
    runtime = RuntimeDir.acquire(str(tmp_path))
    runtime.new_socket().touch()
    log = runtime.worker_log(WorkerName("default-0"))
    log.write_text("line")
    runtime.cleanup()
    assert list(tmp_path.glob("*.sock")) == []
    assert log.read_text() == "line"
    assert (tmp_path / "front.lock").read_text() == ""


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o722])
def test_a_folder_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ConfigError, match="written by others"):
        RuntimeDir.acquire(str(folder))


@pytest.mark.parametrize(
    ("mode", "inside", "advised"),
    [
        (0o777, "logs", True),
        (0o777, "w-0a1b2c3d.sock", True),
        (0o777, "my-thesis.odt", False),
        (0o1777, None, False),
    ],
)
def test_chmod_is_advised_for_a_folder_that_is_ours_alone(
    tmp_path: Path, mode: int, inside: str | None, advised: bool
) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    if inside:
        (folder / inside).mkdir()
    folder.chmod(mode)
    with pytest.raises(ConfigError, match="choose another folder") as caught:
        RuntimeDir.acquire(str(folder))
    assert ("chmod 700" in str(caught.value)) is advised


def test_a_suggested_command_carries_the_folder_unless_it_is_the_default(tmp_path: Path) -> None:
    assert (
        RuntimeDir.find(str(tmp_path)).command("stop").endswith(f" stop --runtime-dir {tmp_path}")
    )
    default = RuntimeDir.find(None)
    assert default.command("stop").endswith(" stop")
    assert RuntimeDir.find(str(default.path)).command("stop").endswith(" stop")


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="not a folder"):
        RuntimeDir.acquire(str(tmp_path / "link"))


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError):
        RuntimeDir.acquire(str(tmp_path / "file"))


def test_someone_elses_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigError, match="another user"):
        RuntimeDir.acquire(str(tmp_path))


def test_a_path_too_long_for_sockets_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--runtime-dir"):
        RuntimeDir.acquire(str(tmp_path / ("x" * 100)))
    assert list(tmp_path.iterdir()) == []


def test_the_default_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert RuntimeDir.find(None).path == Path("/run/user/7/gpufc")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert RuntimeDir.find(None).path.name == f"gpufc-{os.geteuid()}"


def test_a_worker_name_cannot_leave_the_log_folder(tmp_path: Path) -> None:
    runtime = RuntimeDir.find(str(tmp_path))
    assert runtime.worker_log(WorkerName("../../etc/x")).parent == runtime.logs


def test_a_folder_that_vanished_is_made_anew_and_is_held_again(tmp_path: Path) -> None:
    path = tmp_path / "r"
    runtime = RuntimeDir.acquire(str(path))
    shutil.rmtree(path)
    runtime.restore()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert runtime.logs.is_dir()
    assert RuntimeDir.find(str(path)).front_pid() == os.getpid()
    with pytest.raises(StartError, match="another front"):
        RuntimeDir.acquire(str(path))
    runtime.cleanup()
    RuntimeDir.acquire(str(path)).cleanup()


def test_a_file_in_the_folder_s_place_is_a_refusal_that_passes(tmp_path: Path) -> None:
    path = tmp_path / "r"
    runtime = RuntimeDir.acquire(str(path))
    shutil.rmtree(path)
    path.touch()
    with pytest.raises(OSError, match="exists") as caught:
        runtime.restore()
    assert is_by_system(caught.value)
    path.unlink()
    runtime.restore()
    assert runtime.logs.is_dir()
    shutil.rmtree(path)
    path.touch()
    runtime.cleanup()


def test_only_the_log_folder_is_made_anew_where_only_that_vanished(tmp_path: Path) -> None:
    runtime = RuntimeDir.acquire(str(tmp_path / "r"))
    before = (runtime.path / "front.lock").stat().st_ino
    shutil.rmtree(runtime.logs)
    runtime.restore()
    assert runtime.logs.is_dir()
    assert (runtime.path / "front.lock").stat().st_ino == before
    runtime.cleanup()


def test_a_folder_that_another_front_has_taken_meanwhile_stays_its_own(tmp_path: Path) -> None:
    path = tmp_path / "r"
    first = RuntimeDir.acquire(str(path))
    shutil.rmtree(path)
    second = RuntimeDir.acquire(str(path))
    second.admin_token.write_text("the second's")
    with pytest.raises(OSError, match="another front") as caught:
        first.restore()
    assert is_by_system(caught.value)
    first.cleanup()
    assert second.admin_token.exists()
    second.cleanup()


def test_a_folder_that_is_not_held_is_left_alone(tmp_path: Path) -> None:
    RuntimeDir.find(str(tmp_path / "r")).restore()
    assert not (tmp_path / "r").exists()
