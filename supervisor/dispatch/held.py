"""Sequences that only certain workers could continue, all of which are full. Pure.

Without it, each look at the queue would pass over all of them again.
"""

import heapq
from collections.abc import Callable

from gpufc.ids import RequestNo
from supervisor.dispatch.admission import Admission


class Held:
    """By the fingerprint that they need, the shortest replay first.

    Invariant: each is aside in the admission until it comes back or ends. Entries of sequences that
    have ended are passed over.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._waiting: dict[str | None, list[tuple[int, RequestNo]]] = {}

    def hold(self, number: RequestNo, fingerprint: str | None, n_tokens: int) -> None:
        """The next sequence waits until a worker of this fingerprint has room."""
        self._admission.set_aside(number)
        heapq.heappush(self._waiting.setdefault(fingerprint, []), (n_tokens, number))

    def look(self, has_room: Callable[[str], bool]) -> None:
        """The shortest replay of each fingerprint that has room is in the queue again."""
        for fingerprint in list(self._waiting):
            if fingerprint is not None and has_room(fingerprint):
                self._come_back(fingerprint)

    def all_come_back(self) -> None:
        """The workers have changed: every sequence is in the queue again."""
        while self._waiting:
            self._come_back(next(iter(self._waiting)))

    def _come_back(self, fingerprint: str | None) -> None:
        waiting = self._waiting[fingerprint]
        while waiting:
            n_tokens, number = heapq.heappop(waiting)
            if self._admission.is_aside(number):
                self._admission.come_back(number, n_tokens)
                break
        if not waiting:
            del self._waiting[fingerprint]
