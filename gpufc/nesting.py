"""The depth of decoded JSON."""

from typing import Any

MAX_DEPTH = 64
"""Of tool definitions and arguments. Python's own recursion handles far more levels."""


def is_deeper(value: Any, limit: int = MAX_DEPTH) -> bool:
    """Whether lists and objects nest deeper than `limit`. Does not recurse."""
    level = [value]
    for _ in range(limit + 1):
        level = [
            item
            for holder in level
            for item in (
                holder.values()
                if isinstance(holder, dict)
                else holder
                if isinstance(holder, (list, tuple))
                else ()
            )
        ]
        if not level:
            return False
    return True
