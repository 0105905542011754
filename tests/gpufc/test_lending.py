"""A descriptor reaches a process that may not open the owner's /proc, while it is lent."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gpufc.lending import borrowed, lent

READ = """
import os, sys
from gpufc.lending import borrowed
fd = borrowed(int(sys.argv[1]), int(sys.argv[2]))
print(os.pread(fd, 10, 0).decode(), os.get_inheritable(fd))
"""


@pytest.fixture
def fd() -> Iterator[int]:
    made = os.memfd_create("lent", os.MFD_CLOEXEC)
    os.write(made, b"content")
    yield made
    os.close(made)


def test_another_process_reads_what_is_lent(fd: int) -> None:
    with lent(fd):
        said = subprocess.check_output(
            [sys.executable, "-c", READ, str(os.getpid()), str(fd)], text=True
        )
    assert said.split() == ["content", "False"]


def test_nothing_is_to_be_had_before_and_after(fd: int) -> None:
    for _ in range(2):
        with pytest.raises(OSError, match="refused"):
            borrowed(os.getpid(), fd)
        with lent(fd):
            os.close(borrowed(os.getpid(), fd))


def test_one_process_cannot_lend_in_the_name_of_another(fd: int) -> None:
    with lent(fd), pytest.raises(OSError, match="refused"):
        borrowed(os.getpid() + 1, fd)
    with lent(fd), pytest.raises(OSError, match=r"Address already in use"), lent(fd):
        pass
