"""Other programs that want the processor while servers are measured."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

LONGEST_S = 900
"""A neighbour that was left over ends by itself."""

_BUSY = f"import time; end = time.monotonic() + {LONGEST_S}\nwhile time.monotonic() < end: pass"


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes of one busy thread each."""
    started = [subprocess.Popen([sys.executable, "-S", "-c", _BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
