"""The hand-over of a fleet's workers to another front: what it would get, and what is left here."""

from collections.abc import Callable, Mapping

from gpufc.errors import Overloaded
from gpufc.ids import Epoch, WorkerName
from supervisor.fleet.condition import FAILED_S
from supervisor.fleet.followed import Lent
from supervisor.fleet.group import Group
from supervisor.fleet.inheritance import Holdings, is_unchanged, take_stock
from supervisor.fleet.maker import Maker
from supervisor.fleet.names import ServedNames
from supervisor.fleet.place import Place
from supervisor.fleet.port import Condition, ConditionStatus, WorkerHandle


class Succession:
    """Owned by one fleet. Reads its groups; changes them only by handing workers over.

    `condition` is the fleet's once another front has the workers; None before.
    """

    def __init__(
        self,
        groups: Mapping[str, Group],
        withdrawn: Mapping[str, Group],
        names: ServedNames,
        maker: Maker,
        places: Callable[[], list[Place]],
    ) -> None:
        self.condition: Condition | None = None
        self._groups = groups
        self._withdrawn = withdrawn
        self._names = names
        self._maker = maker
        self._places = places

    def holdings(self) -> Holdings:
        """The workers to hand over. Raises `Overloaded` unless every place is settled, and while
        requests wait for a model that is not in memory."""
        if (waiting := self._waiting()) is not None:
            detail = waiting.condition().detail
            raise Overloaded(f"requests wait for {waiting.model}: {detail}", retry_after_s=1.0)
        if any(group.places for group in self._withdrawn.values()):
            raise Overloaded("a model is being removed", retry_after_s=1.0)
        known = self._names.known()
        return take_stock(
            self._places(),
            {model: names for model, names in known.items() if self._groups[model].places},
            next_epoch=self._maker.next_epoch(),
            restarts=self._maker.restarts_total,
        )

    def _waiting(self) -> Group | None:
        """A model that requests wait for, and that is not being loaded yet."""
        groups = self._groups.values()
        return next((one for one in groups if one.absence and not one.absence.is_failure), None)

    def require_ours(self) -> None:
        """Raises `Overloaded` where another front has the workers."""
        if self.condition is not None:
            raise Overloaded("another front has the workers", retry_after_s=1.0)

    def holds(self, holdings: Holdings) -> bool:
        """Whether every worker is the same as when these were taken, and no request has begun to
        wait for another model."""
        return self._waiting() is None and is_unchanged(self._places(), holdings)

    def serving(self, model: str) -> list[WorkerHandle]:
        """The ready workers of a model."""
        workers = [place.runner.worker for place in self._groups[model].places]
        return [worker for worker in workers if worker is not None]

    def lend(self, worker: WorkerName) -> Lent | None:
        """The descriptors of a worker's process, to be copied. None if it has ended."""
        return self._place_of(worker).runner.lend()

    def hand_over(self, worker: WorkerName, successor: Epoch, endpoint: str, token: str) -> None:
        """Send a worker to another front. From now on this fleet manages no worker."""
        self.condition = Condition(ConditionStatus.OK, "", 0.0)
        self._place_of(worker).current.hand_over(successor, endpoint, token)

    def hand_over_remote(self) -> None:
        """Report the workers on other machines as lost: their hosts take them to another front."""
        self.condition = Condition(ConditionStatus.OK, "", 0.0)
        for place in self._places():
            if place.spec.is_remote:
                place.current.leave()

    def successor_lost(self) -> None:
        """The other front is gone, and the workers with it."""
        if self.condition is not None:
            self.condition = Condition(ConditionStatus.FAILED, "the new front is gone", FAILED_S)

    def _place_of(self, worker: WorkerName) -> Place:
        return next(place for place in self._places() if place.spec.name == worker)
