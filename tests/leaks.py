"""Checks that a part of a test leaves no descriptor and no child of this process behind."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def nothing_leaks() -> Iterator[None]:
    """The body ends with no more descriptors and children than it began with.

    Both belong to the whole process. What earlier tests left may be collected at any time, so a
    smaller number at the end is no fault of the body.
    """
    own = psutil.Process()
    gc.collect()
    n_descriptors, n_children = own.num_fds(), len(own.children(recursive=True))
    yield
    gc.collect()
    assert own.num_fds() <= n_descriptors
    assert len(own.children(recursive=True)) <= n_children
