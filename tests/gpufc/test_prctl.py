"""A process that is not dumpable is closed to its own user, except where it says otherwise."""

import os
import subprocess
import sys

OWNER = """
import os, subprocess, sys
from gpufc import prctl
prctl.set_dumpable(False)
fd = os.memfd_create("x")
opening = ["-c", f"open('/proc/{os.getpid()}/fd/{fd}')"]
def opened():
    return subprocess.run([sys.executable, *opening], stderr=subprocess.DEVNULL).returncode == 0
print(opened())
with prctl.reachable():
    print(opened())
print(opened())
"""


def test_descriptors_can_be_opened_in_a_block_only() -> None:
    # root may open everything, unless it lacks this capability
    ordinary = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]
    said = subprocess.run(
        [*(ordinary if os.geteuid() == 0 else []), sys.executable, "-c", OWNER],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.split() == ["False", "True", "False"]
