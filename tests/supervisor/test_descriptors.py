"""The limit of descriptors, the share of connections, and the reserve."""

import os
import subprocess
import sys

import pytest

from supervisor.descriptors import LEAST_CONNECTIONS, OWN, Reserve, for_connections


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [(20, LEAST_CONNECTIONS), (200, 100), (256, 128), (1024, 1024 - OWN), (1 << 20, 7 << 17)],
)
def test_connections_get_what_is_left(limit: int, allowed: int) -> None:
    assert for_connections(limit) == allowed


def test_a_reserve_gives_its_descriptors_up_and_takes_them_again() -> None:
    reserve = Reserve(5)
    assert reserve.n_held == 5
    reserve.release()
    assert reserve.n_held == 0
    reserve.refill()
    assert reserve.n_held == 5
    reserve.release()


IN_A_PROCESS = """
import os, resource
from supervisor.descriptors import Reserve, raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (16, 64))
print(raise_limit())
reserve = Reserve(8)
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
reserve.release()
print(len([os.open("/dev/null", os.O_RDONLY) for _ in range(8)]))
reserve.refill()
print(reserve.n_held)
"""


def test_the_reserve_is_there_when_no_descriptor_is_left() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS], capture_output=True, text=True, env=os.environ.copy()
    )
    assert done.stdout.split() == ["64", "8", "0"], done.stderr
