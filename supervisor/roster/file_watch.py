"""Lets a model that could not be loaded be tried again as soon as its files are others."""

import asyncio
from collections.abc import Callable, Mapping

from gpufc.config import ModelConfig
from supervisor.fleet.model_files import Stamp, stamps
from supervisor.looks import repeat

LOOK_S = 2.0

Stamps = tuple[Stamp, ...]


class FileWatch:
    """In the event loop; looks in a thread. Two looks in a row have to find the same files: a copy
    may be in progress."""

    def __init__(
        self, failed: Callable[[], Mapping[str, ModelConfig]], renew: Callable[[str], None]
    ) -> None:
        """`failed` gives the sections of the models that cool down; `renew` lets one be tried."""
        self._failed = failed
        self._renew = renew
        self._at_failure: dict[str, Stamps] = {}
        self._seen: dict[str, Stamps] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        work = repeat("model files", self._look, LOOK_S)
        self._task = asyncio.create_task(work, name="file watch")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        failed = self._failed()
        if failed or self._at_failure:
            self.look(await asyncio.to_thread(_stamped, failed))

    def look(self, found: Mapping[str, Stamps]) -> None:
        """Compare the files of the models that have failed with those of the looks before."""
        for model in [model for model in self._at_failure if model not in found]:
            del self._at_failure[model]
            self._seen.pop(model, None)
        for model, now in found.items():
            before = self._at_failure.setdefault(model, now)
            if now != before and None not in now and self._seen.get(model) == now:
                del self._at_failure[model]
                self._renew(model)
            self._seen[model] = now


def _stamped(failed: Mapping[str, ModelConfig]) -> dict[str, Stamps]:
    return {model: stamps(config) for model, config in failed.items()}
