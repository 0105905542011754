"""The environments of clients."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients import environment


@pytest.mark.parametrize("error", [AssertionError(), subprocess.TimeoutExpired("npm", 280)])
def test_an_environment_that_could_not_be_installed_is_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    made = tmp_path / "made"

    def fails(*_command: str | Path, **_options: object) -> str:
        made.mkdir(exist_ok=True)
        raise error

    monkeypatch.setattr(environment, "done", fails)
    monkeypatch.setattr(shutil, "which", lambda *_given, **_named: "/bin/true")
    for make in (environment.npm_with, environment.python_with):
        with pytest.raises(type(error)):
            make(made, "a-package")
        assert not made.exists()
