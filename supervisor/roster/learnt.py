"""Keeps what loads have taught: read at the start, written in a thread after each lesson."""

import asyncio
import logging
from pathlib import Path

from supervisor.residency import store
from supervisor.residency.measured import Measured

logger = logging.getLogger(__name__)

FOLDER = "needs"


class Learnt:
    """`RUNTIME_DIR/needs/needs.json`. In the event loop. Invariant: at most one write at a time."""

    def __init__(self, runtime: Path) -> None:
        self._path = runtime / FOLDER / "needs.json"
        self.measured: Measured = store.load(self._path)
        self._writing: asyncio.Task[None] | None = None
        self._is_stale = False

    def changed(self) -> None:
        """Write it soon."""
        self._is_stale = True
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Wait until everything is written."""
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        while self._is_stale:
            self._is_stale = False
            kept = Measured(self.measured.entries())
            try:
                await asyncio.to_thread(store.save, self._path, kept)
            except OSError as err:
                logger.warning("needs_not_written path=%s: %s", self._path, err)
