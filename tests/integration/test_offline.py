"""A front in a network namespace of its own, whose kernel counts what it sends."""

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

UNSHARE = ["unshare", "-rn"]


@cache
def may_unshare() -> bool:
    if shutil.which(UNSHARE[0]) is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0


def sent(folder: Path, offline: str) -> dict[str, Any]:
    command = [*UNSHARE, sys.executable, "-m", "tests.integration.offline_child"]
    done = subprocess.run([*command, str(folder), offline], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not may_unshare(), reason="no network namespace can be made here")
def test_an_offline_front_opens_no_connection_at_all(tmp_path: Path) -> None:
    found = sent(tmp_path / "run", "true")
    assert found == {"Tcp:ActiveOpens": 0, "Udp:OutDatagrams": 0, "network": False}
    found = sent(tmp_path / "other", "false")
    assert (found["Tcp:ActiveOpens"] > 0, found["network"]) == (True, True)
