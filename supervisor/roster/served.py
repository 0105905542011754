"""The served models and their terms: the configuration, and what requests have asked for."""

from collections.abc import Callable

from gpufc.config import Config
from supervisor.fleet.names import served_name
from supervisor.residency.memory import Free
from supervisor.residency.port import Terms
from supervisor.residency.residency import Residency
from supervisor.roster.needs import Needs
from supervisor.roster.port import FleetPort
from supervisor.roster.terms import keep_alive, longer, terms_of


class Served:
    """In a roster, which alone changes it.

    Invariant: the residency knows each served model, under the terms that stand here.
    """

    def __init__(
        self,
        fleet: FleetPort,
        config: Config,
        needs: Needs,
        free: Callable[[], Free],
        residency: Residency,
    ) -> None:
        self.terms: dict[str, Terms] = {}
        """By served name."""
        self._fleet = fleet
        self._config = config
        self._needs = needs
        self._free = free
        self._residency = residency
        self._keep_alive: dict[str, float | None] = {}
        """What a request has asked for, until the model is unloaded."""

    def register(self, model: str) -> None:
        """Bring the terms of a model up to date. The model is served from now on."""
        group = self._fleet.group(model)
        kept = self._keep_alive.get(model, keep_alive(group.config, is_only=self.is_only(model)))
        terms = terms_of(group, kept, self._needs, tuple(self._free().devices))
        if terms != self.terms.get(model):
            self.terms[model] = terms
            self._residency.register(model, terms)

    def forget(self, model: str) -> bool:
        """Serve a model no more. False if it was not served."""
        if self.terms.pop(model, None) is None:
            return False
        self._keep_alive.pop(model, None)
        self._residency.forget(model)
        return True

    def keep_alive(self, model: str, seconds: float | None, *, may_shorten: bool) -> bool:
        """As `Roster.keep_alive`. False where a request cannot change how long the model stays."""
        config = self._fleet.group(model).config
        if seconds is None or config.pinned or self.is_only(model):
            return False
        now_s = self._keep_alive.get(model, keep_alive(config, is_only=False))
        self._keep_alive[model] = seconds if may_shorten else longer(now_s, seconds)
        self.register(model)
        return True

    def unloaded(self, model: str) -> None:
        """Forget what requests have asked for."""
        self._keep_alive.pop(model, None)

    def is_only(self, model: str) -> bool:
        """Whether the operator has configured this model and no other one."""
        names = [served_name(one) for one in self._config.models.values()]
        return names == [model]

    def is_alone(self, model: str) -> bool:
        """Whether no other model is served."""
        return len(self.terms) == 1 and model in self.terms
