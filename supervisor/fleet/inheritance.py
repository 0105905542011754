"""The workers that a fleet hands over to another front's fleet, which begins with them. Pure.

`supervisor/handover` carries them from one to the other.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from gpufc.errors import Overloaded
from gpufc.ids import Epoch, WorkerName
from supervisor.fleet.edge import TakeOver
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.place import Place
from supervisor.fleet.worker import WorkerSpec


class HeldWorker(Struct, frozen=True, kw_only=True):
    """A running worker, as its place in the next fleet begins with it. `wanted` is its place's own
    spec, where that may be another one: later workers of the place have it."""

    spec: WorkerSpec
    pid: int
    restarts: int
    last_exit: ExitReason | None
    wanted: WorkerSpec | None = None

    @property
    def of_place(self) -> WorkerSpec:
        """The spec of its place."""
        return self.wanted or self.spec


class Holdings(Struct, frozen=True, kw_only=True):
    """A whole fleet. `models` maps served names to aliases. No process had `next_epoch` yet."""

    workers: tuple[HeldWorker, ...]
    """Those on other machines come to the next front with their hosts, and not from this one."""
    models: dict[str, tuple[str, ...]]
    next_epoch: Epoch
    restarts: dict[Reason, int]

    @property
    def lent(self) -> list[HeldWorker]:
        """The workers of this machine, whose descriptors are copied."""
        return [worker for worker in self.workers if not worker.spec.is_remote]


class FleetInheritance(Struct, frozen=True, kw_only=True):
    """The workers, with their processes, that a fleet begins with when it takes over."""

    holdings: Holdings
    processes: dict[WorkerName, TakeOver]


def take_stock(
    places: Sequence[Place],
    models: dict[str, tuple[str, ...]],
    *,
    next_epoch: Epoch,
    restarts: Mapping[Reason, int],
) -> Holdings:
    """The workers to hand over. Raises `Overloaded` unless every place is settled."""
    unsettled = next((place for place in places if not place.is_settled), None)
    if unsettled is not None:
        detail = unsettled.condition().detail or "it is being replaced"
        raise Overloaded(f"{unsettled.spec.name}: {detail}", retry_after_s=1.0)
    held = [worker for place in places if (worker := _held(place)) is not None]
    return Holdings(
        workers=tuple(held), models=models, next_epoch=next_epoch, restarts=dict(restarts)
    )


def is_unchanged(places: Sequence[Place], holdings: Holdings) -> bool:
    """Whether every worker is the same as when these were taken."""
    before = {worker.spec.name: worker.pid for worker in holdings.workers}
    now = {worker.spec.name: worker.pid for place in places if (worker := _held(place))}
    return now == before and all(place.is_settled for place in places)


def _held(place: Place) -> HeldWorker | None:
    """The ready worker of a place, if there is one."""
    row = place.runner.status()
    if place.runner.worker is None or row.pid is None:
        return None
    return HeldWorker(
        spec=place.runner.spec,
        pid=row.pid,
        restarts=row.restarts,
        last_exit=row.last_exit,
        wanted=place.spec,
    )
