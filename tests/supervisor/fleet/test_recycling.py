"""When a worker has grown too much."""

import os
import subprocess
import sys

from gpufc.ids import Epoch
from supervisor.fleet.recycling import PAUSE_S, Recycler, anonymous_bytes

E1, E2 = Epoch(1), Epoch(2)


def test_growth_counts_from_what_a_worker_had_when_it_was_first_looked_at() -> None:
    recycler = Recycler(100)
    assert not recycler.look(E1, 5000, 0.0)
    assert not recycler.look(E1, 5100, 1.0)
    assert recycler.look(E1, 5101, 2.0)


def test_the_next_process_begins_anew() -> None:
    recycler = Recycler(100)
    recycler.look(E1, 1000, 0.0)
    assert not recycler.look(E2, 2000, 1.0)
    assert recycler.look(E2, 2101, 2.0)


def test_what_grows_at_once_again_is_left_alone_for_a_while() -> None:
    recycler = Recycler(100)
    recycler.look(E1, 0, 0.0)
    assert recycler.look(E1, 101, 1.0)
    recycler.look(E2, 0, 2.0)
    assert not recycler.look(E2, 500, 3.0)
    assert recycler.look(E2, 500, 1.0 + PAUSE_S)


def test_anonymous_memory_is_that_of_the_process() -> None:
    mapped = "import sys; held = bytearray(80 << 20); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", mapped], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = anonymous_bytes(child.pid)
        assert found is not None
        assert 80 << 20 < found < 160 << 20
        child.communicate()
    assert anonymous_bytes(child.pid) is None
    assert (anonymous_bytes(os.getpid()) or 0) > 1 << 20
