"""Which messages of a subject count. Pure.

A cluster of NATS compares the expected message with the last one when a message comes, and stores
it later. Of two that come at once, it may store both. So each message names the one that it
follows. The first one that follows a message is the next one; others do not count.

    number   1    2    3    4
    follows  0    1    1    2        3 came at once with 2, and does not count
"""

from collections.abc import Iterable

from msgspec import Struct


class Message(Struct, frozen=True):
    """One that is stored under a number. `follows` is another message's, 0 for none."""

    number: int
    follows: int
    data: bytes


def chained(messages: Iterable[Message], after: int) -> list[Message]:
    """Those that count of all messages of a subject behind `after`, which counts. Without such a
    message (0) the first one counts: what it follows may have been forgotten."""
    found: list[Message] = []
    last = after
    for one in messages:
        if one.follows == last or not last:
            found.append(one)
            last = one.number
    return found
