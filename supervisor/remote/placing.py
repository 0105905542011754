"""Has a Ray cluster run the front's hosts, by the placer, a process of its own."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from gpufc.config import ClusterConfig
from gpufc.errors import ConfigError, GpufcError
from supervisor.cluster.join import JoinFile
from supervisor.placer.keeper import Keeper
from supervisor.placer.messages import HostRow, Order
from supervisor.remote.machines import Machines

logger = logging.getLogger(__name__)

INVITATION_S = 600.0
CHECK_S = 60.0
"""A start waits so long for the placer's word. A Ray head that is away stops no front."""
STOP_S = 9.0
"""A front that stops waits so long in all: for its placer to find the hosts of the front before,
and for the cluster to end them. Less than `STOP_MARGIN_S` of a service's unit, with the end of the
placer."""


class Inviting(Protocol):
    """See `cluster.Cluster`."""

    machines: Machines

    @property
    def front_key(self) -> str: ...
    def invite(
        self, n_hosts: int = 1, lifetime_s: float | None = ..., *, takes_name: bool = ...
    ) -> JoinFile: ...


class Placing:
    """In the event loop. The hosts outlive a front that is killed; the next one finds them by its
    key."""

    def __init__(
        self,
        config: ClusterConfig,
        cluster: Inviting,
        log: Path,
        keeper: Callable[..., Keeper] = Keeper,
    ) -> None:
        """Starts nothing. `keeper` makes the placer's keeper."""
        self._cluster = cluster
        self._news = asyncio.Event()
        self._keeper = keeper(
            (config.cluster or "").removeprefix("ray://"),
            cluster.front_key[:16],
            Order(config.cluster_hosts, resources(config.cluster_resources)),
            self._invitation,
            log,
            is_insecure=config.insecure_ray,
        )
        self._keeper.on_fact = self._heard

    @property
    def hosts(self) -> tuple[HostRow, ...]:
        """The hosts that the cluster runs, as far as the placer has told."""
        return self._keeper.placed.hosts

    def start(self) -> None:
        """Start the placer."""
        self._keeper.start()

    async def checked(self) -> None:
        """Wait for the placer's first word. Raises `ConfigError` for a refusal."""
        try:
            async with asyncio.timeout(CHECK_S):
                await self._news.wait()
        except TimeoutError:
            logger.warning("no_word_of_ray: Ray has not answered for %.0f s", CHECK_S)
        if self._keeper.refusal is not None:
            raise ConfigError(self._keeper.refusal)

    async def leave(self) -> None:
        """End the placer. The hosts go on, for another front."""
        await self._keeper.stop()

    async def stop(self) -> None:
        """End the hosts, then the placer. A front that has just taken over finds them first."""
        if not self._keeper.has_started:
            return  # the hosts may be another front's
        self._keeper.want(0, {})
        until = asyncio.get_running_loop().time() + STOP_S
        if await self._until(lambda: self._keeper.has_found or self._is_cut_off, until):
            await self._until(lambda: not self.hosts or self._is_cut_off, until)
        if self.hosts or not self._keeper.has_found:
            logger.warning("hosts_left_behind n=%d", len(self.hosts))
        await self._keeper.stop()

    @property
    def _is_cut_off(self) -> bool:
        """Whether the placer can do nothing: it is refused, or has not reached Ray."""
        keeper = self._keeper
        return keeper.refusal is not None or bool(keeper.placed.trouble and not keeper.has_found)

    async def _until(self, holds: Callable[[], bool], until: float) -> bool:
        """Wait for something that the placer tells. False if it does not until then, by the loop's
        clock."""
        while not holds():
            self._news.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._news.wait()
            except TimeoutError:
                return False
        return True

    def _heard(self) -> None:
        self._news.set()
        said = self._keeper.refusal or self._keeper.placed.trouble
        self._cluster.machines.hosts.trouble = f"Ray: {said}" if said else ""
        self._cluster.machines.changed()

    def _invitation(self) -> str:
        """A join file's text for one host. Raises `OSError`."""
        try:
            content = self._cluster.invite(1, INVITATION_S, takes_name=True)
        except GpufcError as err:
            raise OSError(str(err)) from err
        return msgspec.json.encode(content).decode()


def resources(text: str) -> dict[str, float]:
    """`CPU=4,GPU=1` by name."""
    pairs = (one.partition("=") for one in text.split(",") if one)
    return {name: float(amount) for name, _, amount in pairs}
