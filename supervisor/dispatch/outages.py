"""Ends the sequences that have waited too long for a worker. A timer for each model with any."""

import asyncio

from supervisor.dispatch.group import ModelGroup

LATE_S = 0.1
"""A timer fires a little later than the sequence is due: the loop's clock is a different one."""


class Outages:
    """In the event loop. Invariant: at most one timer for each group."""

    def __init__(self) -> None:
        self._watched: set[ModelGroup] = set()

    def watch(self, group: ModelGroup) -> None:
        """Set a timer for the first sequence that will have waited too long."""
        if group in self._watched:
            return
        wait_s = group.outage.expire()
        if wait_s is not None:
            self._watched.add(group)
            asyncio.get_running_loop().call_later(wait_s + LATE_S, self._look_again, group)

    def _look_again(self, group: ModelGroup) -> None:
        self._watched.discard(group)
        self.watch(group)
