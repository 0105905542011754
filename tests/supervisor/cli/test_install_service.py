"""`install-service`: the units that it writes, and what it refuses to overwrite."""

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from supervisor.cli import install_service, service_unit
from supervisor.cli.install_service import command

DEPLOY = Path(__file__).parents[3] / "scripts/deploy/systemd"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("GPUFC_CONFIG", raising=False)
    monkeypatch.setattr(install_service, "_fault", lambda units, user: "")
    return tmp_path


def test_the_files_for_packagers_are_the_units_of_the_command() -> None:
    place = service_unit.Place()
    assert (DEPLOY / service_unit.SERVICE).read_text() == service_unit.service(place)
    assert (DEPLOY / service_unit.SOCKET).read_text() == (
        service_unit.socket(place, "127.0.0.1", 8082)
    )


def test_a_service_of_the_machine_uses_its_state_folder_and_not_the_link_to_it() -> None:
    unit = service_unit.service(service_unit.Place())
    assert "DynamicUser=yes" in unit
    assert unit.count("--runtime-dir %S/private/gpufc\n") == 2  # start and reload
    assert "%S/gpufc" not in unit


def test_a_service_of_the_machine_lets_its_workers_confine_themselves() -> None:
    filters = [
        line.removeprefix("SystemCallFilter=").split()
        for line in service_unit.service(service_unit.Place()).splitlines()
        if line.startswith("SystemCallFilter=")
    ]
    allowed = {call for one in filters if not one[0].startswith("~") for call in one}
    landlock = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
    assert {*landlock, "seccomp"} <= allowed


def test_a_user_s_service_is_written_with_a_configuration_and_next_steps(home: Path) -> None:
    said = CliRunner().invoke(command, ["--user", "--socket"], catch_exceptions=False).output
    unit = (home / "systemd/user/gpufc.service").read_text()
    assert f"start --config {home / 'gpufc/gpufc.toml'} --runtime-dir %t/gpufc" in unit
    assert "DynamicUser" not in unit
    assert "ListenStream=127.0.0.1:8082" in (home / "systemd/user/gpufc.socket").read_text()
    assert (home / "gpufc/gpufc.toml").read_text().startswith("# The configuration")
    assert "systemctl --user enable --now gpufc.socket gpufc.service" in said
    assert " status\n" in said


def test_the_next_steps_name_the_folder_by_which_root_reaches_the_front(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install_service, "SYSTEM_FOLDER", home / "system")
    args = ["--config", str(home / "own.toml")]
    said = CliRunner().invoke(command, args, catch_exceptions=False).output
    assert " status --runtime-dir /var/lib/gpufc\n" in said
    said = CliRunner().invoke(command, [*args, "--force", "--runtime-dir", "/srv/run"]).output
    assert " status --runtime-dir /srv/run\n" in said


def test_the_unit_follows_the_configuration(home: Path) -> None:
    config = home / "own.toml"
    config.write_text("shutdown_timeout_s = 100\nport = 9000\nhost = '::1'")
    args = ["--user", "--socket", "--print", "--config", str(config)]
    said = CliRunner().invoke(command, args, catch_exceptions=False).output
    assert "TimeoutStopSec=115" in said
    assert "ListenStream=[::1]:9000" in said
    assert not (home / "systemd").exists()


def test_a_unit_that_someone_has_changed_stays_unless_forced(home: Path) -> None:
    runner = CliRunner()
    runner.invoke(command, ["--user"], catch_exceptions=False)
    unit = home / "systemd/user/gpufc.service"
    unit.write_text("mine")
    assert "--force overwrites it" in str(runner.invoke(command, ["--user"]).exception)
    assert unit.read_text() == "mine"
    runner.invoke(command, ["--user", "--force"], catch_exceptions=False)
    assert unit.read_text() != "mine"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is missing")
def test_systemd_accepts_the_units_and_finds_the_service_confined(tmp_path: Path) -> None:
    place = service_unit.Place(program=shutil.which("true") or "/bin/true")
    files = [tmp_path / service_unit.SERVICE, tmp_path / service_unit.SOCKET]
    files[0].write_text(service_unit.service(place))
    files[1].write_text(service_unit.socket(place, "127.0.0.1", 8082))
    verified = subprocess.run(
        ["systemd-analyze", "verify", *files], capture_output=True, text=True, timeout=60
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", files[0]],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert rated.returncode == 0, rated.stdout[-200:]
