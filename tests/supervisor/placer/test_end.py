"""The placer's process ends by itself where it cannot go on, while its front still talks to it."""

import os
import subprocess
from pathlib import Path

from supervisor.placer import messages
from supervisor.placer.__main__ import REFUSED
from supervisor.placer.keeper import COMMAND
from supervisor.placer.messages import Refusal

ROOT = Path(__file__).parents[3]


def test_a_placer_without_ray_says_so_and_ends_with_its_code(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('no Ray')\n")
    placer = subprocess.Popen(
        [*COMMAND, "127.0.0.1:1", "--cell=x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))},
    )
    assert placer.stdout is not None
    assert placer.stderr is not None
    assert placer.stdin is not None
    try:
        assert isinstance(messages.fact_of(placer.stdout.readline()), Refusal)
        assert placer.wait(60) == REFUSED
        assert placer.stderr.read() == b""
    finally:
        placer.kill()
        placer.wait()
        for stream in (placer.stdin, placer.stdout, placer.stderr):
            stream.close()
