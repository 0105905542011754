"""The warning about a runtime folder that goes with the login, and where it would be wrong."""

import os
import pwd
from pathlib import Path

import pytest

from supervisor.cli import lingering

LOGIN = {"XDG_SESSION_ID": "3", "HOME": "/home/someone"}


class Machine:
    """logind's folders."""

    def __init__(self, root: Path) -> None:
        self.users, self.lingering = root / "user", root / "linger"
        self.own = self.users / str(os.getuid())
        self.lingering.mkdir()

    def note(self, folder: Path, **environ: str) -> str | None:
        return lingering.note(folder, LOGIN | environ, users=self.users, lingering=self.lingering)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_folder_that_logind_removes_is_warned_of(machine: Machine) -> None:
    said = machine.note(machine.own / "gpufc")
    assert said is not None
    assert said.startswith(f"{machine.own}/gpufc is removed when you log out")
    assert "loginctl enable-linger" in said


@pytest.mark.parametrize(
    ("environ", "kept"),
    [
        ({"XDG_STATE_HOME": "/states"}, "/states/gpufc"),
        ({"XDG_STATE_HOME": "relative"}, "/home/someone/.local/state/gpufc"),  # as if it were unset
        ({}, "/home/someone/.local/state/gpufc"),
    ],
)
def test_another_folder_is_named_where_state_is_kept(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], kept: str
) -> None:
    monkeypatch.setenv("HOME", LOGIN["HOME"])
    said = machine.note(machine.own / "gpufc", **environ)
    assert said is not None
    assert said.endswith(f"--runtime-dir {kept}")


def test_a_user_who_lingers_is_not_warned(machine: Machine) -> None:
    (machine.lingering / pwd.getpwuid(os.getuid()).pw_name).touch()
    assert machine.note(machine.own / "gpufc") is None


@pytest.mark.parametrize("folder", ["/tmp/gpufc-7", "/run/user/65534/gpufc"])
def test_a_folder_elsewhere_stays(machine: Machine, folder: str) -> None:
    assert machine.note(Path(folder)) is None


def test_a_front_that_no_login_started_is_not_warned_of(machine: Machine) -> None:
    """A service of the system or of cron has no session that could end."""
    found = lingering.note(
        machine.own / "gpufc", {}, users=machine.users, lingering=machine.lingering
    )
    assert found is None
