"""Plugins behind a front over a fake fleet. They run in threads; a few tests take processes."""

import contextlib
import json
import socket
import subprocess
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gpufc.config import (
    AdmissionConfig,
    Config,
    OnError,
    PluginConfig,
    PluginsConfig,
    ServerConfig,
)
from gpufc.framing import read_frame
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.plugins import host
from supervisor.plugins import plugins as module
from supervisor.plugins.plugins import Plugins
from supervisor.plugins.process import PluginProcess
from tests.supervisor.http.conftest import Service

SAMPLES = Path(__file__).parent / "samples"


def sample(name: str, on_error: OnError = OnError.FAIL, **options: Any) -> PluginConfig:
    return PluginConfig(
        use=str(SAMPLES / f"{name}.py"), on_error=on_error, timeout_s=20.0, options=options
    )


class ThreadPlugin(PluginProcess):
    """Runs the plugin's host in a thread of this process."""

    def _spawn(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair()
        use = self.config.use

        def run() -> None:
            with theirs, contextlib.suppress(OSError):
                options = json.loads(read_frame(theirs.recv, 1 << 20) or b"{}")
                host.serve(theirs, lambda: host.load(use, options))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        class Process:
            def wait(self) -> int:
                thread.join()
                return 0

        return Process(), ours  # type: ignore[return-value]

    def _kill(self, popen: subprocess.Popen[bytes]) -> None:
        """The host sees the end of its socket."""


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PluginProcess", ThreadPlugin)


class Plugged:
    """A front with plugins. `worker` answers."""

    def __init__(self, service: Service, plugins: Plugins) -> None:
        self.service = service
        self.plugins = plugins
        self.worker = service.fleet.start_worker()

    async def said(self, prompt: str, **fields: Any) -> str:
        answer = await self.service.complete(prompt=prompt, **fields)
        assert answer.status == 200, answer.body
        text: str = answer.json["choices"][0]["text"]
        return text


@contextlib.asynccontextmanager
async def plugged(
    tmp_path: Path, *plugins: PluginConfig, slots: int = 4, server: ServerConfig | None = None
) -> AsyncIterator[Plugged]:
    config = Config(
        server=server or ServerConfig(),
        admission=AdmissionConfig(max_concurrent_requests=slots),
        plugins=PluginsConfig(plugins=plugins),
    )
    made: list[Plugins] = []

    def hooks(dispatcher: Dispatcher) -> Plugins:
        made.append(Plugins(config, tmp_path, dispatcher))
        return made[0]

    service = Service(config, hooks=hooks)
    await made[0].start()
    await service.start()
    try:
        yield Plugged(service, made[0])
    finally:
        await service.stop()
        await made[0].stop()
