"""Which policy decides about drafts. `speculator_for` is the only place that chooses one."""

from collections.abc import Callable

from engine_worker.backend.profile import Drafting
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.speculation.drafter import Drafter
from engine_worker.speculation.per_step import PerStepSpeculator
from engine_worker.speculation.per_stretch import PerStretchSpeculator
from engine_worker.speculation.quiet_stretches import QuietStretches
from engine_worker.speculation.speculator import NoSpeculation, Speculator

_SPECULATORS: dict[Drafting, Callable[[Drafter, StepCosts], Speculator]] = {
    Drafting.ANY_LENGTH: PerStepSpeculator,
    Drafting.ONE_LENGTH: PerStretchSpeculator,
}
"""The policy for each kind of drafts. With a kind that is not listed nothing is drafted."""


def speculator_for(
    drafting: Drafting, drafter: Drafter | None, costs: StepCosts, *, steps_ahead: bool = False
) -> Speculator:
    """The policy for these drafts; `NoSpeculation` without a drafter.

    `costs` must be the record that the engine writes the seconds of its steps into. With
    `steps_ahead`, a step without drafts may be begun ahead: a policy that drafts for each step
    leaves stretches without, unless its drafter would compute beside the step.
    """
    make = _SPECULATORS.get(drafting)
    if drafter is None or make is None:
        return NoSpeculation()
    made = make(drafter, costs)
    is_each = drafting is Drafting.ANY_LENGTH and drafter.position_s is None
    return QuietStretches(made) if steps_ahead and is_each else made
