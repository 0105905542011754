"""Reckons what models need that were never loaded here, from their headers, in the background.

Each header is read by a process of its own (`engine_worker.reckon`), since it is untrusted. What a
load has taught is better, so a model that was loaded before is left alone.
"""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Protocol

import msgspec

from gpufc.config import BackendKind, FleetConfig, ModelConfig, Spread
from gpufc.facts import MAX_SEQUENCES
from gpufc.reckoning import Question, Reckoning
from supervisor.fleet.group import Group
from supervisor.fleet.process import scrubbed
from supervisor.looks import repeat
from supervisor.residency.memory import HOST, Free
from supervisor.roster.needs import Needs, may_use

logger = logging.getLogger(__name__)

COMMAND = ("nice", sys.executable, "-P", "-m", "engine_worker.reckon")
LIMIT_S = 20.0
LOOK_S = 2.0
PAUSE_S = 0.2
"""Between two processes: a folder of many models is no hurry."""


class Known(Protocol):
    """The served models, as the roster knows them."""

    def models(self) -> list[str]: ...
    def group(self, model: str) -> Group: ...


class Reckoner:
    """One model after another. In the event loop; processes are waited for in a thread."""

    def __init__(
        self,
        fleet: Known,
        needs: Needs,
        free: Callable[[], Free],
        n_running: int,
        limits: FleetConfig,
        register: Callable[[str], None],
    ) -> None:
        """`register` is called when a model's needs are known better. `limits` bound the memory for
        all models."""
        self._fleet = fleet
        self._needs = needs
        self._free = free
        self._n_running = min(n_running, MAX_SEQUENCES)
        self._limits = limits
        self._register = register
        self._task: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin, and go on with models that are added."""
        work = repeat("reckoner", self._look, LOOK_S)
        self._task = asyncio.create_task(work, name="reckoner")

    async def stop(self) -> None:
        """End the process that runs, too: its header may lie on a disk that does not answer."""
        if self._process is not None:
            self._process.kill()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        while model := next(filter(self._is_unknown, self._fleet.models()), None):
            config = self._fleet.group(model).config
            found = await asyncio.to_thread(self._asked, self._question(config))
            self._needs.reckoned(config, found, self._devices(config))
            if model in self._fleet.models():
                self._register(model)
            await asyncio.sleep(PAUSE_S)

    def _is_unknown(self, model: str) -> bool:
        group = self._fleet.group(model)
        is_here = group.config.spread is Spread.FRONT
        is_real = group.config.backend is BackendKind.LLAMA and is_here
        return is_real and not group.places and not self._needs.is_known(group.config)

    def _devices(self, config: ModelConfig) -> list[str]:
        return [name for name in self._free().devices if may_use(config, name)]

    def _question(self, config: ModelConfig) -> Question:
        free = self._free()
        host = free.total_host_bytes or free.free(HOST) or 0
        # a worker's context on a device is no room for its model
        devices = [
            max(0, free.total(name) - free.contexts.get(name, 0)) for name in self._devices(config)
        ]
        most, most_each = self._limits.memory_limit_bytes, self._limits.device_memory_limit_bytes
        return Question(
            config=config,
            n_running=self._n_running,
            host_bytes=_at_most(host, most),
            device_bytes=tuple(_at_most(total, most_each) for total in devices),
        )

    def _asked(self, question: Question) -> Reckoning:
        """The answer, or one with an error where the process gave none. In a thread."""
        try:
            with subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=scrubbed(os.environ),
            ) as process:
                self._process = process
                try:
                    said, _ = process.communicate(msgspec.json.encode(question), LIMIT_S)
                finally:
                    process.kill()
            return msgspec.json.decode(said, type=Reckoning)
        except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as err:
            logger.warning("not_reckoned model_path=%s: %s", question.config.model_path, err)
            return Reckoning(error=str(err))


def _at_most(n_bytes: int, limit_bytes: int | None) -> int:
    return n_bytes if limit_bytes is None else min(n_bytes, limit_bytes)
