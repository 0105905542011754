"""Which messages of a subject count. Pure.

A cluster of NATS compares the expected message with the last one when a message comes, and stores
it later. Of two that come at once, it may store both. So each message names the one that it
follows. The first one that follows a message is the next one; others do not count.

    number   1    2    3    4
    follows  0    1    1    2        3 came at once with 2, and does not count
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct


class Message(Struct, frozen=True):
    """One that is stored under a number. `follows` is another message's, 0 for none."""

    number: int
    follows: int
    data: bytes


def follows(one: Message, after: int) -> bool:
    """Whether a message may be the next one behind `after`, which counts. Without such a message
    (0) any message may: what it follows may have been forgotten."""
    return one.follows == after or not after


def chained(messages: Iterable[Message], after: int) -> list[Message]:
    """Those that count of all messages of a subject behind `after`, which counts (0: none)."""
    found: list[Message] = []
    last = after
    for one in messages:
        if follows(one, last):
            found.append(one)
            last = one.number
    return found


def place_behind(messages: Sequence[Message], expected: int) -> int | None:
    """The message that one which follows `expected` can be stored behind, if others are there that
    do not count. `messages` are all of the subject from `expected` on. None if `expected` has been
    forgotten, or if another message follows it."""
    if not messages or messages[0].number != expected or chained(messages[1:], expected):
        return None
    last = messages[-1].number
    return last if last != expected else None
