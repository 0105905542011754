"""A scheduler as on a CPU, driven step by step."""

from engine_worker.backend.profile import Drafting, Profile, Shape
from engine_worker.scheduling.plan import Plan
from engine_worker.scheduling.policies import scheduler_for
from engine_worker.scheduling.scheduler import Scheduler
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.text.sequence import Sequence
from engine_worker.tuning import H100
from tests.engine_worker.scheduling import plans
from tests.engine_worker.scheduling.plans import computed


def scheduler(
    max_running: int = 4,
    n_slots: int = 6,
    batch_tokens: int = 8,
    costs: StepCosts | None = None,
    *,
    on_device: bool = False,
) -> Scheduler:
    return scheduler_for(
        profile(n_slots, on_device=on_device),
        max_running=max_running,
        batch_tokens=batch_tokens,
        costs=costs or StepCosts(),
    )


def profile(
    n_slots: int, *, consecutive: bool = False, least_copied: int = 0, on_device: bool = False
) -> Profile:
    return Profile(
        shape=Shape.MIXED,
        drafting=Drafting.NONE,
        n_slots=n_slots,
        consecutive=consecutive,
        cuts_prefixes=True,
        least_copied=least_copied,
        overlaps=on_device,
        on_device=on_device,
        prompt_token_s=0.0,
        tuning=H100,
    )


def work_of(plan: Plan) -> list[tuple[int, int, bool]]:
    return sorted((item.sequence.request, item.count, item.output) for item in computed(plan))


def step(planner: Scheduler, token: int = 97) -> list[tuple[int, int, bool]]:
    """One step, after which each finished chunk has produced a token."""
    return work_of(plans.step(planner, token))


def add(planner: Scheduler, *specs: Sequence) -> None:
    for item in specs:
        planner.add(item)
