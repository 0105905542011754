"""A scheduler as beside a device, a KV stream for each sequence, driven step by step."""

from engine_worker.backend.profile import Drafting, Profile, Shape
from engine_worker.kv.prefix_cache import KeepsPrefix
from engine_worker.scheduling.policies import scheduler_for
from engine_worker.scheduling.scheduler import Scheduler
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.tuning import H100
from tests.engine_worker.scheduling.plans import step
from tests.engine_worker.text.sequences import sequence, spec


def scheduler(
    max_running: int = 64,
    batch_tokens: int = 1024,
    *,
    shape: Shape = Shape.EQUAL,
    keeps_prefix: KeepsPrefix = lambda _slot, _n_tokens: True,
    prompt_token_s: float = 0.0,
) -> Scheduler:
    profile = Profile(
        shape=shape,
        drafting=Drafting.NONE,
        n_slots=max_running + 4,
        consecutive=True,
        cuts_prefixes=True,
        least_copied=0,
        overlaps=True,
        on_device=True,
        prompt_token_s=prompt_token_s,
        tuning=H100,
    )
    return scheduler_for(
        profile,
        max_running=max_running,
        batch_tokens=batch_tokens,
        costs=StepCosts(),
        keeps_prefix=keeps_prefix,
    )


def fixed_pass_planner(batch_tokens: int = 1024) -> Scheduler:
    return scheduler(32, batch_tokens, shape=Shape.FIXED)


def running(
    n_running: int = 10, batch_tokens: int = 1024, *, prompt_token_s: float = 0.0
) -> Scheduler:
    """That many decode, in the first slots."""
    planner = scheduler(
        max(32, 2 * n_running), batch_tokens, shape=Shape.FIXED, prompt_token_s=prompt_token_s
    )
    for number in range(1, n_running + 1):
        planner.add(sequence(spec(number, 40)))
    while any(not seq.n_gained for seq in planner.running) or planner.waiting:
        step(planner)
    return planner
