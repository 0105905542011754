"""The calls for one durable request, which take turns."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from supervisor.dispatch.durable import DurableKey


class Turn:
    """The calls for one key."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.n_calls = 0


class Turns:
    """In the event loop. Invariant: a key is in here while there are calls for it."""

    def __init__(self) -> None:
        self._turns: dict[DurableKey, Turn] = {}

    def __contains__(self, key: DurableKey) -> bool:
        return key in self._turns

    @contextlib.asynccontextmanager
    async def of(self, key: DurableKey) -> AsyncIterator[None]:
        """One call for each key at a time."""
        turn = self._turns.setdefault(key, Turn())
        turn.n_calls += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.n_calls -= 1
            if not turn.n_calls:
                del self._turns[key]
