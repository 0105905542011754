"""What an operator asks for while clients are served: another worker beside the one that serves."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from gpufc.errors import GpufcError
from tests.chaos.rig import Figures, Rig

Lines = Iterator[dict[str, Any]]


class Operation:
    """A restart or a swap over the control socket. `begin` it once, then wait for its `end`."""

    def __init__(self, one: Rig, ask: Callable[[], Lines]) -> None:
        self._one = one
        self._ask = ask
        self._task: asyncio.Task[dict[str, Any]] | None = None

    async def begin(self) -> int:
        """Ask, and wait until the new worker loads. Its pid."""
        self._task = asyncio.create_task(asyncio.to_thread(self._last_line))
        found = await self._one.until(_loads, "the new one loads")
        return int(next(row["pid"] for row in found["spares"] if row["state"] == "loading"))

    async def end(self) -> str:
        """Its last event: `done` or `failed`."""
        if self._task is None:
            return "not begun"
        return str((await self._task)["event"])

    def _last_line(self) -> dict[str, Any]:
        try:
            return list(self._ask())[-1]
        except GpufcError as err:
            return {"event": f"{type(err).__name__}: {err}"}


def _loads(figures: Figures) -> bool:
    return any(row["state"] == "loading" for row in figures["spares"])


def restart(one: Rig) -> Operation:
    """`gpufc-supervisor restart`."""
    return Operation(one, lambda: one.service.control.restart(None, now=False))


def swap(one: Rig, model_path: str) -> Operation:
    """`gpufc-supervisor swap`."""
    return Operation(one, lambda: one.service.control.swap(model_path, None, None, None))
