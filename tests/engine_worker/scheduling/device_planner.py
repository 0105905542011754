"""A scheduler as beside a device, a KV stream for each sequence, driven step by step."""

from engine_worker.kv.prefix_cache import PrefixCache
from engine_worker.kv.stream_slots import StreamSlots
from engine_worker.scheduling.plan import Plan
from engine_worker.scheduling.scheduler import Scheduler
from engine_worker.scheduling.step_costs import StepCosts
from tests.engine_worker.text.sequences import sequence, spec


def scheduler(
    max_running: int = 64, batch_tokens: int = 1024, *, in_one_shape: bool = False
) -> Scheduler:
    n_slots = max_running + 4
    slots = StreamSlots(n_slots, max_idle=n_slots, cache=PrefixCache(can_cut=True))
    return Scheduler(
        max_running=max_running,
        batch_tokens=batch_tokens,
        slots=slots,
        costs=StepCosts(),
        in_passes=True,
        in_one_shape=in_one_shape,
    )


def step(planner: Scheduler) -> Plan:
    """Plan, commit, and let each finished chunk produce a token."""
    plan = planner.plan()
    planner.commit(plan)
    for item in plan.work:
        if item.output:
            item.sequence.accept(97)
    return plan


def running(n_running: int = 10) -> Scheduler:
    """That many decode, in the first slots."""
    planner = scheduler(32, in_one_shape=True)
    for number in range(1, n_running + 1):
        planner.add(sequence(spec(number, 40)))
    while any(not seq.n_gained for seq in planner.running) or planner.waiting:
        step(planner)
    return planner


def slots_of(plan: Plan) -> list[int]:
    return [work.start.slot for work in plan.work]
