"""Checks that a part of a test leaves no descriptor and no child of this process behind."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from tests.service import wait_for


@contextmanager
def nothing_leaks() -> Iterator[None]:
    """The body ends with no more descriptors and children than it began with.

    Both belong to the whole process. What earlier tests left may be collected at any time, so a
    smaller number at the end is no fault of the body. A thread that writes a file holds it for a
    moment longer than the body; what leaks stays.
    """
    own = psutil.Process()
    gc.collect()
    n_descriptors, n_children = own.num_fds(), len(own.children(recursive=True))
    yield
    gc.collect()
    wait_for(lambda: own.num_fds() <= n_descriptors, why="no descriptor is left open")
    assert len(own.children(recursive=True)) <= n_children
