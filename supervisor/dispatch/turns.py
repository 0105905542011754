"""Whose turn it is among clients that wait. Pure: knows owners and numbers only.

Next comes the owner of whom the fewest sequences run, so that slots are shared evenly whatever
each of them asks for; among equals the one that has been passed over for longest. Within an owner
it is first come, first served. Nobody starves: who comes later, or has just had a turn, stands
behind, so an owner of whom nothing runs waits for one turn of each other one at most.
"""

import itertools
from bisect import bisect_left, insort

from gpufc.ids import RequestNo


class _Owner:
    """One client's sequences. `since` is the event (a running number) at which it came or a
    sequence of its last began or stopped running; no two owners have the same."""

    __slots__ = ("name", "present", "running", "since", "waiting")

    def __init__(self, name: str, since: int) -> None:
        self.name = name
        self.since = since
        self.present: set[RequestNo] = set()
        self.running: set[RequestNo] = set()
        self.waiting: list[RequestNo] = []

    @property
    def position(self) -> "_Position":
        return len(self.running), self.since, self


_Position = tuple[int, int, _Owner]
"""Where an owner stands: the sequences of it that run, and its `since`, which settles the rest."""


class Turns:
    """Invariants: an owner is known as long as any sequence of it is here; it stands in `_line`,
    at its position, exactly as long as any of them waits. Both lists are sorted: a change costs a
    binary search and moving what lies behind, microseconds with ten thousand.
    """

    def __init__(self) -> None:
        self._owners: dict[str, _Owner] = {}
        self._owner_of: dict[RequestNo, _Owner] = {}
        self._line: list[_Position] = []
        self._n_waiting = 0
        self._events = itertools.count()

    @property
    def n_waiting(self) -> int:
        """Sequences that wait for their owner's turn."""
        return self._n_waiting

    def n_owners(self, besides: str) -> int:
        """Owners with anything here, and this one."""
        return len(self._owners) + (besides not in self._owners)

    def n_present(self, name: str) -> int:
        """Sequences of an owner, whatever they do."""
        owner = self._owners.get(name)
        return len(owner.present) if owner is not None else 0

    def enter(self, number: RequestNo, name: str) -> None:
        """A sequence is here, and neither waits nor runs."""
        owner = self._owners.get(name)
        if owner is None:
            owner = self._owners[name] = _Owner(name, next(self._events))
        owner.present.add(number)
        self._owner_of[number] = owner

    def wait(self, number: RequestNo) -> None:
        """It may run when it is its owner's turn."""
        owner = self._owner_of[number]
        self._step_out(owner)
        insort(owner.waiting, number)
        self._n_waiting += 1
        self._step_in(owner)

    def first(self) -> RequestNo | None:
        """Whose turn it is."""
        return self._line[0][2].waiting[0] if self._line else None

    def begin(self, number: RequestNo) -> None:
        """It runs, in its turn or out of it."""
        owner = self._owner_of[number]
        self._step_out(owner)
        self._no_longer_waits(owner, number)
        owner.running.add(number)
        owner.since = next(self._events)
        self._step_in(owner)

    def pause(self, number: RequestNo) -> None:
        """It neither waits nor runs any more."""
        owner = self._owner_of[number]
        self._step_out(owner)
        self._no_longer_waits(owner, number)
        if number in owner.running:
            owner.running.remove(number)
            owner.since = next(self._events)
        self._step_in(owner)

    def leave(self, number: RequestNo) -> None:
        """It is here no more."""
        self.pause(number)
        owner = self._owner_of.pop(number)
        owner.present.remove(number)
        if not owner.present:
            del self._owners[owner.name]

    def _no_longer_waits(self, owner: _Owner, number: RequestNo) -> None:
        index = bisect_left(owner.waiting, number)
        if index < len(owner.waiting) and owner.waiting[index] == number:
            del owner.waiting[index]
            self._n_waiting -= 1

    def _step_out(self, owner: _Owner) -> None:
        """Before anything changes on which an owner's position depends."""
        if owner.waiting:
            del self._line[bisect_left(self._line, owner.position)]

    def _step_in(self, owner: _Owner) -> None:
        if owner.waiting:
            insort(self._line, owner.position)
