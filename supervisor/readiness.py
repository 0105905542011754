"""Whether a front that has just started can produce a token, or never will."""

import asyncio
from typing import TYPE_CHECKING

from gpufc.errors import ConfigError, StartError
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.port import ConditionStatus

if TYPE_CHECKING:
    from supervisor.remote.cluster import Cluster

SETTLED = frozenset({ConditionStatus.OK, ConditionStatus.FAILED})


class UnusableModel(StartError, ConfigError):
    """The model or its configuration is at fault: starting again would fail again.

    Hence it is a `ConfigError` too, with that exit code.
    """


async def wait_ready(
    fleet: Fleet, dispatcher: Dispatcher, cluster: "Cluster | None", stopping: asyncio.Event
) -> None:
    """Wait until a token could be produced, or until `stopping` is set.

    Raises `UnusableModel` for a model that cannot be loaded, `StartError` if its worker fails for
    good otherwise, `ConfigError` for a Ray cluster that may not be used.
    """
    waited = asyncio.create_task(_settled(fleet, dispatcher, cluster))
    stopped = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({waited, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if waited.done():
            waited.result()
    finally:
        waited.cancel()
        stopped.cancel()
    condition = fleet.condition()
    if condition.status is ConditionStatus.FAILED:
        raise (UnusableModel if _load_failed(fleet) else StartError)(condition.detail)


async def _settled(fleet: Fleet, dispatcher: Dispatcher, cluster: "Cluster | None") -> None:
    """A token could be produced, or never will. Raises `ConfigError`."""
    if cluster is not None:
        await cluster.checked()
    await dispatcher.wait_until(lambda: fleet.condition().status in SETTLED)


def _load_failed(fleet: Fleet) -> bool:
    exits = (row.last_exit for row in fleet.workers())
    return any(last is not None and last.reason is Reason.LOAD_FAILED for last in exits)
