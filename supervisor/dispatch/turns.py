"""The order of turns among owners with waiting sequences. Pure: sees owners and numbers only.

The next turn is the owner's with the fewest running sequences, so that slots are shared evenly
however much each owner asks for. Among equals it is the owner's with the longest time since its
last change. Within an owner it is first come, first served, with the numbers by which a policy
wants a sequence earlier or later. No owner starves: an owner that is new, or has just had a turn,
stands behind its equals. So an owner without a running sequence waits for at most one turn of each
other owner.
"""

import itertools
from bisect import bisect_left, insort
from collections.abc import Collection

from gpufc.ids import RequestNo

_Place = tuple[int, int, RequestNo]
"""A sequence's sort key among its owner's. Exactly as many are before or behind it as it is shifted
by: with an equal sum, one shifted forward comes first, and one shifted back last."""


class _Owner:
    """One owner's sequences. `since` is the running number of the event at which the owner came, or
    a sequence of it last started or stopped running; it is unique among owners."""

    __slots__ = ("name", "present", "running", "since", "waiting")

    def __init__(self, name: str, since: int) -> None:
        self.name = name
        self.since = since
        self.present: set[RequestNo] = set()
        self.running: set[RequestNo] = set()
        self.waiting: list[_Place] = []

    @property
    def position(self) -> "_Position":
        return len(self.running), self.since, self


_Position = tuple[int, int, _Owner]
"""An owner's sort key: its running sequences, then its `since`."""


class Turns:
    """Invariants: an owner is known as long as it has a sequence here. It stands in `_line`, at its
    position, exactly as long as a sequence of it waits. `_line` and each owner's `waiting` are
    sorted, so a change is a binary search and one move of the entries behind.
    """

    def __init__(self) -> None:
        self._owners: dict[str, _Owner] = {}
        self._owner_of: dict[RequestNo, _Owner] = {}
        self._later: dict[RequestNo, int] = {}
        self._line: list[_Position] = []
        self._n_waiting = 0
        self._events = itertools.count()

    @property
    def n_waiting(self) -> int:
        """Sequences that wait for their owner's turn."""
        return self._n_waiting

    @property
    def n_starved(self) -> int:
        """Owners with a sequence that waits and none that runs."""
        return bisect_left(self._line, 1, key=lambda position: position[0])

    def crowding(self, besides: Collection[RequestNo]) -> set[RequestNo]:
        """The running sequences of the owner with the most, `besides` not counted. Empty if each
        owner has one at most. Sequences without a known owner do not count."""
        each = (one.running.difference(besides) for one in self._owners.values() if one.name)
        several = (running for running in each if len(running) > 1)
        return max(several, key=lambda running: (len(running), max(running)), default=set())

    def n_owners(self, besides: str) -> int:
        """The number of owners with sequences here, `besides` included."""
        return len(self._owners) + (besides not in self._owners)

    def n_present(self, name: str) -> int:
        """The number of an owner's sequences, at any stage."""
        owner = self._owners.get(name)
        return len(owner.present) if owner is not None else 0

    def owner_of(self, number: RequestNo) -> str:
        """The name of a sequence's owner."""
        return self._owner_of[number].name

    def waits(self, number: RequestNo) -> bool:
        """Whether it waits for its owner's turn."""
        waiting, place = self._owner_of[number].waiting, self._place(number)
        index = bisect_left(waiting, place)
        return index < len(waiting) and waiting[index] == place

    def enter(self, number: RequestNo, name: str) -> None:
        """Add a sequence that neither waits nor runs yet."""
        owner = self._owners.get(name)
        if owner is None:
            owner = self._owners[name] = _Owner(name, next(self._events))
        owner.present.add(number)
        self._owner_of[number] = owner

    def later(self, number: RequestNo) -> int:
        """The numbers by which it counts as having come later."""
        return self._later.get(number, 0)

    def shift(self, number: RequestNo, later: int) -> None:
        """It counts as having come later by so many numbers. It does not wait now."""
        self._later.pop(number, None)
        if later:
            self._later[number] = later

    def wait(self, number: RequestNo) -> None:
        """It waits for its owner's turn from now on."""
        owner = self._owner_of[number]
        self._step_out(owner)
        insort(owner.waiting, self._place(number))
        self._n_waiting += 1
        self._step_in(owner)

    def first(self) -> RequestNo | None:
        """The sequence with the next turn."""
        return self._line[0][2].waiting[0][2] if self._line else None

    def begin(self, number: RequestNo) -> None:
        """It runs from now on, in its turn or out of it."""
        owner = self._owner_of[number]
        self._step_out(owner)
        self._no_longer_waits(owner, number)
        owner.running.add(number)
        owner.since = next(self._events)
        self._step_in(owner)

    def pause(self, number: RequestNo) -> None:
        """It neither waits nor runs from now on."""
        owner = self._owner_of[number]
        self._step_out(owner)
        self._no_longer_waits(owner, number)
        if number in owner.running:
            owner.running.remove(number)
            owner.since = next(self._events)
        self._step_in(owner)

    def leave(self, number: RequestNo) -> None:
        """Remove a sequence."""
        self.pause(number)
        owner = self._owner_of.pop(number)
        self._later.pop(number, None)
        owner.present.remove(number)
        if not owner.present:
            del self._owners[owner.name]

    def _no_longer_waits(self, owner: _Owner, number: RequestNo) -> None:
        if self.waits(number):
            del owner.waiting[bisect_left(owner.waiting, self._place(number))]
            self._n_waiting -= 1

    def _place(self, number: RequestNo) -> _Place:
        later = self.later(number)
        return number + later, later, number

    def _step_out(self, owner: _Owner) -> None:
        """Take the owner out of `_line`, before its position changes."""
        if owner.waiting:
            del self._line[bisect_left(self._line, owner.position)]

    def _step_in(self, owner: _Owner) -> None:
        if owner.waiting:
            insort(self._line, owner.position)
