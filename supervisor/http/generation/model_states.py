"""The state of a served model, for routes that show it."""

from supervisor.fleet.model_state import ModelPhase, ModelState
from supervisor.fleet.port import ConditionStatus
from supervisor.http.edge.context import Services


def state_of(front: Services, model: str) -> ModelState:
    """A served model as it is now. Without a roster its condition tells."""
    if front.models is not None:
        return front.models.state(model)
    status = front.fleet.condition(model).status
    known = {ConditionStatus.OK: ModelPhase.READY, ConditionStatus.FAILED: ModelPhase.FAILED}
    return ModelState(name=model, state=known.get(status, ModelPhase.LOADING))
