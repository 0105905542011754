"""The served models as clients and operators see them."""

import time
from collections.abc import Callable

from gpufc.config import ModelConfig
from supervisor.fleet.group import Group
from supervisor.fleet.model_state import ModelPhase, ModelState
from supervisor.fleet.port import ConditionStatus
from supervisor.roster.needs import Needs
from supervisor.roster.port import DemandPort, FleetPort
from supervisor.roster.roster import Roster
from supervisor.roster.waiting import of_load


class ShownModels:
    """Reads a roster and its fleet, and changes neither."""

    def __init__(
        self,
        roster: Roster,
        fleet: FleetPort,
        demand: DemandPort,
        needs: Needs,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._roster = roster
        self._fleet = fleet
        self._demand = demand
        self._needs = needs
        self._clock = clock

    def state(self, model: str) -> ModelState:
        """A served model as it is now."""
        now = self._clock()
        group = self._fleet.group(model)
        phase = self._phase(model, group, now)
        condition = group.condition()
        failure = self._roster.residency.failure(model, now)
        config = group.config
        residents = self._roster.workers.of(model)
        need = self._roster.served.terms[model].placements[0].need
        return ModelState(
            name=model,
            state=phase,
            detail="" if phase in {ModelPhase.READY, ModelPhase.BUSY} else condition.detail,
            retry_after_s=failure[1] if failure is not None else None,
            fraction=max((p.runner.status().loading_fraction for p in group.places), default=0.0),
            model_path=config.model_path,
            n_ctx=config.n_ctx,
            size_bytes=self._needs.size(config),
            host_bytes=need.host_bytes,
            mapped_bytes=need.mapped_bytes,
            device_bytes=sum(need.devices.values()),
            replicas=group.n_replicas,
            workers=sum(one.epoch is not None for one in residents),
            pinned=config.pinned,
            expires_in_s=self._expires_in(model, phase, now),
            expected_load_s=self._roster.served.terms[model].load_s or None,
            n_loads=self._roster.workers.n_loads[model],
        )

    def states(self) -> list[ModelState]:
        """All served models."""
        return [self.state(model) for model in self._roster.served.terms]

    def _phase(self, model: str, group: Group, now: float) -> ModelPhase:
        known = ModelPhase(self._roster.residency.state(model, now))
        if group.places:
            status = group.condition().status
            if status is ConditionStatus.FAILED:
                return ModelPhase.FAILED
            if status in {ConditionStatus.RESTARTING, ConditionStatus.HUNG}:
                return ModelPhase.RESTARTING
            if known in {ModelPhase.READY, ModelPhase.BUSY}:  # what is told is older
                is_busy = any(self._demand.usage(model).open_by.values())
                return ModelPhase.BUSY if is_busy else ModelPhase.READY
            return known
        if group.absence is not None and known is not ModelPhase.FAILED:
            return ModelPhase.FAILED if group.absence.is_failure else ModelPhase.WAITING
        return known

    def _expires_in(self, model: str, phase: ModelPhase, now: float) -> float | None:
        terms = self._roster.served.terms[model]
        if phase is not ModelPhase.READY or terms.keep_alive_s is None or terms.pinned:
            return None
        return max(0.0, self._roster.idle_since.get(model, now) + terms.keep_alive_s - now)

    def failed(self) -> dict[str, ModelConfig]:
        """The sections of the models that cool down."""
        now, roster = self._clock(), self._roster
        found = [
            one for one in roster.served.terms if roster.residency.failure(one, now) is not None
        ]
        return {model: self._fleet.group(model).config for model in found}

    def note(self, model: str) -> str:
        """What a client that waits for the model is told; empty for one that is there."""
        if model not in self._roster.served.terms:
            return ""
        group = self._fleet.group(model)
        if group.has_worker:
            return ""
        places = group.places
        if not places:
            return group.absence.detail if group.absence is not None else ""
        fraction = max(place.runner.status().loading_fraction for place in places)
        wait = self._roster.waits.get(model)
        return of_load(fraction, None if wait is None else wait.expected_s)
