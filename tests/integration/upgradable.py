"""A service over the scripted engine whose front can be replaced."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.integration.commands import command
from tests.integration.fake_service import FAKE
from tests.service import Service, lives, service, wait_for

ROOT = str(Path(__file__).parents[2])
N_TOKENS = 120
QUICK = FAKE | {
    "GPUFC_FAKE_SCRIPT": "step_ms=5",
    "GPUFC_KEEPALIVE_TIMEOUT_S": "20",  # a client's pool gives up after 15: it never asks too late
    "GPUFC_STANDBY": "none",
}


class Running:
    """A service with a changing front: `service.process` is the first one."""

    def __init__(self, started: Service, config: Path) -> None:
        self.service = started
        self.config = config
        self.old = started.front
        self.url = started.url
        self.worker = psutil.Process(started.worker()["pid"])

    async def upgrade(self) -> tuple[int, str]:
        """The command: its exit code and its output."""
        return await command(self.service, "upgrade")

    def front(self) -> psutil.Process:
        """The front that answers now."""
        return psutil.Process(self.service.status()["front"]["pid"])

    async def until_old_is_gone(self) -> None:
        code = await asyncio.to_thread(self.service.process.wait, 60)
        assert code == 0, self.service.output


@contextmanager
def upgradable(
    tmp_path: Path, *arguments: str, models: str = "", **environ: str
) -> Iterator[Running]:
    config = tmp_path / "gpufc.toml"
    config.write_text(models)
    arguments = ("--config", str(config), *arguments)
    with service(tmp_path / "run", *arguments, environ=QUICK | environ) as started:
        found = Running(started, config)
        with upgraded_ended(started):
            yield found


@contextmanager
def upgraded_ended(running: Service) -> Iterator[None]:
    """End the front that has taken over, if one has."""
    try:
        yield
    finally:
        pid = running.runtime.front_pid()
        if pid is not None and pid != running.process.pid:
            with suppress(psutil.NoSuchProcess):
                front = psutil.Process(pid)
                front.terminate()
                wait_for(lambda: not lives(front), why="the new front has ended")
