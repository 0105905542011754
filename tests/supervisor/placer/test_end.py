"""The placer's process ends by itself where it cannot go on, while its front still talks to it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from supervisor.placer import messages
from supervisor.placer.__main__ import REFUSED
from supervisor.placer.keeper import COMMAND
from supervisor.placer.messages import Join, Order, Placed, Refusal

ROOT = Path(__file__).parents[3]
RAY = """
from types import SimpleNamespace

def init(**options): ...

def get_actor(name):
    raise OSError("a socket of Ray's is broken")

util = SimpleNamespace(list_named_actors=lambda: [])
"""
EXCEPTIONS = """
class RayError(Exception): ...
class GetTimeoutError(RayError): ...
"""


@contextmanager
def placer(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """A placer that imports `ray` from the folder, and its facts."""
    made = subprocess.Popen(
        [*COMMAND, "127.0.0.1:1", "--cell=x", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))},
    )
    assert made.stdout is not None
    assert made.stderr is not None
    assert made.stdin is not None
    try:
        yield made, made.stdout
    finally:
        made.kill()
        made.wait()
        for stream in (made.stdin, made.stdout, made.stderr):
            stream.close()


def test_a_placer_without_ray_says_so_and_ends_with_its_code(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('no Ray')\n")
    with placer(tmp_path) as (process, facts):
        assert isinstance(messages.fact_of(facts.readline()), Refusal)
        assert process.wait(60) == REFUSED
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_placer_that_ray_fails_ends_with_a_code_and_the_reason(tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text(RAY)
    (tmp_path / "ray" / "exceptions.py").write_text(EXCEPTIONS)
    with placer(tmp_path, "--insecure-ray") as (process, facts):
        assert isinstance(messages.fact_of(facts.readline()), Placed)
        assert process.stdin is not None
        process.stdin.write(messages.line(Order(1)) + messages.line(Join("an invitation")))
        process.stdin.flush()
        assert process.wait(60) == 1
        assert process.stderr is not None
        said = process.stderr.read()
        assert b"placer_failed" in said
        assert b"a socket of Ray's is broken" in said
