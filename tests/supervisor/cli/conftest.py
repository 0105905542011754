"""For the tests of this folder: the control server, and a terminal to type at."""

import os
import pty
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.supervisor.control.control_server import server

__all__ = ["server"]


@pytest.fixture
def typing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], int]]:
    """Stdin is a terminal; call it to press keys."""
    keyboard, terminal = pty.openpty()
    with open(terminal, closefd=False) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield lambda keys: os.write(keyboard, keys.encode())
    os.close(terminal)
    os.close(keyboard)
