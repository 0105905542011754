"""Prompts for a scheduler as beside a device, and the passes that they take."""

from engine_worker.scheduling.plan import Plan
from engine_worker.scheduling.scheduler import Scheduler
from engine_worker.text.sequence import Sequence
from tests.engine_worker.scheduling.plans import step
from tests.engine_worker.text.sequences import sequence, spec


def passes(plan: Plan) -> int:
    """In how many llama.cpp computes it: runs of consecutive slots, each as often as the counts of
    tokens differ; of a run only what is left is computed further."""
    left = {item.slot: item.n_tokens for item in plan.work}
    n_passes = 0
    while left:
        run = [min(left)]
        while run[-1] + 1 in left:
            run.append(run[-1] + 1)
        least = min(left[slot] for slot in run)
        left = {
            slot: count - least if slot in run else count
            for slot, count in left.items()
            if slot not in run or count > least
        }
        n_passes += 1
    return n_passes


def run_until_all_decode(planner: Scheduler) -> int:
    """The passes that this takes."""
    n_passes = 0
    while planner.waiting or any(not seq.n_gained for seq in planner.running):
        plan = step(planner)
        assert plan.n_tokens <= planner.batch_tokens
        n_passes += passes(plan)
    return n_passes


def prompts(*lengths: int) -> list[Sequence]:
    """Prompts of these lengths that have nothing in common."""
    return [
        sequence(spec(number, (number, *(97 + at % 26 for at in range(n - 1)))))
        for number, n in enumerate(lengths, start=1)
    ]
