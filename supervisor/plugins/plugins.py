"""All plugins of a front: their start and end, and the points where the front asks them."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from gpufc.config import Config
from gpufc.errors import ConfigError
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.dispatch.request import GenerationRequest, Principal
from supervisor.dispatch.stream import ResponseStream
from supervisor.plugins.chain import Chain
from supervisor.plugins.filtering import FilteredRequest
from supervisor.plugins.policies import Decisions, Policies
from supervisor.plugins.process import Counts, PluginProcess, started
from supervisor.plugins.structs import Event

OF_REQUESTS = frozenset({"before_admission", "on_prompt", "on_delta", "on_finish"})
"""Without any of these hooks, requests do not go through here."""


class PluginStatus(Struct, frozen=True):
    """A row of `/stats`' `plugins`. `policy` is there for one with a policy's hooks."""

    name: str
    hooks: list[str]
    on_error: str
    is_ready: bool
    detail: str
    counts: Counts
    policy: Decisions | None


class Plugins:
    """In the event loop. Made before its plugins are started."""

    def __init__(self, config: Config, logs: Path, dispatcher: Dispatcher) -> None:
        """Raises `ConfigError` for two plugins of one name."""
        offline = config.server.offline
        processes = [
            PluginProcess(one, logs, offline=offline, may_quote=lambda: config.server.log_prompts)
            for one in config.plugins.all()
        ]
        names = [one.name for one in processes]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"plugins names {name} more than once")
        self.chain = Chain(processes)
        self._dispatcher = dispatcher
        self._running: set[asyncio.Task[None]] = set()
        self._policies = Policies(())
        self._is_started = False

    async def start(self) -> None:
        """Load all plugins. Does nothing the second time. Raises `ConfigError`."""
        if self._is_started:
            return
        self._is_started = True
        found = await started(self.chain.plugins)
        for plugin, error in zip(self.chain.plugins, found, strict=True):
            if error is not None:
                await self.stop()
                raise ConfigError(f"plugin {plugin.config.use} cannot be loaded: {error}")
        self._policies = Policies(self.chain.plugins)
        self._dispatcher.adviser = self._policies or None

    async def stop(self) -> None:
        """End all processes. Returns when they have ended."""
        await asyncio.gather(*(one.stop() for one in self.chain.plugins))

    # the front's questions

    def submit(self, request: GenerationRequest, principal: Principal) -> ResponseStream:
        """As `Dispatcher.submit`, with the plugins between. Raises `RequestError`."""
        if not any(OF_REQUESTS & one.hooks for one in self.chain.plugins):
            return self._dispatcher.submit(request, principal)
        filtered = FilteredRequest(self.chain, self._dispatcher, request, principal)
        self._running.add(filtered.task)
        filtered.task.add_done_callback(self._running.discard)
        return filtered.stream

    async def identify(self, headers: Mapping[str, str], address: str) -> Principal | None:
        """The principal that a plugin names. Raises `AuthenticationFailed`."""
        return await self.chain.authenticate(headers, address)

    def event(self, kind: str, worker: str, model: str, detail: str = "") -> None:
        """Tell the plugins of a worker."""
        self.chain.on_event(Event(kind, worker, model, detail))

    def summary(self) -> Sequence[PluginStatus]:
        """The rows of `/stats`."""
        return [
            PluginStatus(
                *(one.name, sorted(one.hooks), one.config.on_error.value),
                *(one.is_ready, one.detail, one.counts),
                policy=self._policies.decisions(one),
            )
            for one in self.chain.plugins
        ]
