"""Imports without garbage collection."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Import modules without collections in between, and leave their objects out of later ones.

    Collections would walk the same modules, classes and functions again and again, and find hardly
    any garbage among them, which makes a start slower.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
