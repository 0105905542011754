"""The fleet as a principal with a list of models sees it."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from gpufc.config import Replay
from gpufc.errors import ModelNotFound, PermissionDenied
from gpufc.sampling import SamplingFields
from supervisor.dispatch.port import ServedFleet
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.port import Condition, SpareStatus, WorkerStatus


class AllowedModels:
    """Implements `ServedFleet`: lists the allowed models, and resolves names of no other one.

    `patterns` are of served names, so an alias opens no other model.
    """

    def __init__(self, fleet: ServedFleet, patterns: Sequence[str]) -> None:
        self._fleet = fleet
        self._patterns = patterns

    def models(self) -> list[str]:
        return [name for name in self._fleet.models() if self.allows(name)]

    def resolve(self, name: str | None) -> str:
        """As the fleet's. Raises `PermissionDenied`, also for a model that does not exist: the
        fleet's error lists the others."""
        try:
            found = self._fleet.resolve(name)
        except ModelNotFound:
            found = None
        if found is None or not self.allows(found):
            raise PermissionDenied("The key may not use this model", param="model")
        return found

    def shown(self, name: str | None) -> str:
        self.resolve(name)
        return self._fleet.shown(name)

    def condition(self, model: str | None = None) -> Condition:
        return self._fleet.condition(model)

    def replay(self, model: str) -> Replay:
        return self._fleet.replay(model)

    def sampling(self, model: str) -> SamplingFields:
        return self._fleet.sampling(model)

    def adapters(self, model: str) -> tuple[str, ...]:
        return self._fleet.adapters(model)

    @property
    def restarts_total(self) -> Mapping[Reason, int]:
        return self._fleet.restarts_total

    def workers(self) -> list[WorkerStatus]:
        return [row for row in self._fleet.workers() if self.allows(row.model)]

    def spares(self) -> list[SpareStatus]:
        return self._fleet.spares()

    def allows(self, name: str) -> bool:
        """Whether the model of this served name may be used and seen."""
        return any(fnmatchcase(name, pattern) for pattern in self._patterns)
