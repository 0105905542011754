"""The order in which one kind of sequences starts: replays first, then in turns. Pure."""

from bisect import bisect_left, insort

from gpufc.ids import RequestNo
from supervisor.dispatch.turns import Turns


class Line:
    """Invariant: `_replays` is sorted by the size of the replay, so that the shortest is first.

    Every sequence of the line is known to `turns`; a replay neither waits nor runs there.
    """

    def __init__(self) -> None:
        self.turns = Turns()
        self._again: dict[RequestNo, int] = {}
        self._replays: list[tuple[int, RequestNo]] = []

    @property
    def n_waiting(self) -> int:
        """Sequences that could start now."""
        return self.turns.n_waiting + len(self._again)

    def first(self) -> RequestNo | None:
        """The sequence that starts next."""
        return self._replays[0][1] if self._replays else self.turns.first()

    def wait_again(self, number: RequestNo, n_tokens: int) -> None:
        """It waits as a replay of that size."""
        self._again[number] = n_tokens
        insort(self._replays, (n_tokens, number))

    def no_longer_again(self, number: RequestNo) -> None:
        """It is no replay any more, if it was one."""
        n_tokens = self._again.pop(number, None)
        if n_tokens is not None:
            del self._replays[bisect_left(self._replays, (n_tokens, number))]

    def move(self, number: RequestNo, target: "Line", *, runs: bool) -> None:
        """Hand a sequence over to another line, at the same stage."""
        owner, waits = self.turns.owner_of(number), self.turns.waits(number)
        n_tokens, later = self._again.get(number), self.turns.later(number)
        self.no_longer_again(number)
        self.turns.leave(number)
        target.turns.enter(number, owner)
        target.turns.shift(number, later)
        if waits:
            target.turns.wait(number)
        elif runs:
            target.turns.begin(number)
        elif n_tokens is not None:
            target.wait_again(number, n_tokens)
