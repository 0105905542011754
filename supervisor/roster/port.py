"""The parts of dispatch and of the fleet that the roster uses."""

from collections.abc import Callable
from typing import Protocol

from gpufc.errors import EngineUnavailable
from gpufc.ids import Epoch
from supervisor.dispatch.usage import Usage
from supervisor.fleet.group import Group


class DemandPort(Protocol):
    """What requests want, and what is done to those that wait
    (`supervisor.dispatch.demand.Demand`)."""

    changed: Callable[[str | None], None]
    """Set by the roster: called when requests begin to wait, end, or a worker's state changes."""

    def usage(self, model: str) -> Usage: ...
    def open(self, model: str, epoch: Epoch, *, is_open: bool) -> None: ...
    def refuse(self, model: str, error: EngineUnavailable) -> None: ...
    def forget(self, model: str) -> None: ...


class FleetPort(Protocol):
    """The served models and their places (`supervisor.fleet.fleet.Fleet`)."""

    def models(self) -> list[str]: ...
    def group(self, model: str) -> Group: ...
    def withdraw(self, model: str) -> None: ...
    async def remove(self, model: str) -> None: ...
    def make_room(self, n_bytes: int) -> None: ...
