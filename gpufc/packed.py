"""Token ids as bytes, for messages with millions of them: such a message is read without work.

Both processes run on one machine, so the ids are in its byte order, four bytes each.
"""

from array import array
from collections.abc import Sequence

PART = 65_536
"""Ids that are packed in one go. Other threads get the interpreter in between."""

ID_BYTES = array("i").itemsize


def packed(tokens: Sequence[int]) -> memoryview:
    """The bytes of the ids."""
    ids = array("i")
    for at in range(0, len(tokens), PART):
        ids.extend(tokens[at : at + PART])
    return memoryview(ids).cast("B")


def unpacked(data: memoryview) -> memoryview:
    """The ids in these bytes, as a sequence of numbers that copies nothing."""
    return data.cast("i")
