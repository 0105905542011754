"""One tenant of the memory: its place in the fleet, and what the residency was told of it."""

import msgspec

from gpufc.ids import Epoch
from supervisor.dispatch.usage import Usage
from supervisor.fleet.group import Group
from supervisor.fleet.place import Place
from supervisor.residency.memory import Memory
from supervisor.residency.port import TenantNo


class Resident:
    """Only the roster changes it. `epoch` is the worker that was reported as loaded, if any."""

    __slots__ = (
        *("epoch", "group", "held", "is_closed", "is_leaving", "measured_at", "n_open", "no"),
        *("place", "placement", "since"),
    )

    def __init__(
        self, no: TenantNo, group: Group, place: Place, placement: str, since: float | None
    ) -> None:
        """`placement` is the name of its way to hold the model. `since`: when its load began, in
        monotonic seconds; None if that has ended before."""
        self.no = no
        self.group = group
        self.place = place
        self.placement = placement
        self.since = since
        """None once the time of its load is known."""
        self.epoch: Epoch | None = None
        self.n_open = 0
        self.is_closed = False
        self.is_leaving = False
        self.held = Memory()
        """The largest amounts that this worker was seen with; nothing before it is loaded."""
        self.measured_at = 0.0
        """When `held` was measured last, in monotonic seconds."""

    @property
    def model(self) -> str:
        return self.group.model

    def n_open_now(self, usage: Usage) -> int:
        """What its worker does now. A replacement counts too: it is not to be interrupted."""
        n_open = 0 if self.epoch is None else usage.open_by.get(self.epoch, 0)
        return n_open + (self.place.is_busy or self.place.is_retiring)

    def grown(self, anonymous_bytes: int) -> bool:
        """Note a loaded worker's own memory. Whether it is more than before."""
        if anonymous_bytes <= self.held.host_bytes:
            return False
        self.held = msgspec.structs.replace(self.held, host_bytes=anonymous_bytes)
        return True
