"""What a plan computes of each sequence, in a form that tests compare."""

from typing import NamedTuple

from engine_worker.scheduling.plan import Chunk, Decode, Plan
from engine_worker.scheduling.scheduler import Scheduler
from engine_worker.text.sequence import Sequence


class Computed(NamedTuple):
    """`count` known tokens of a sequence; with `output` it gains a token from them."""

    sequence: Sequence
    count: int
    output: bool


def computed(plan: Plan) -> list[Computed]:
    """In the order of the plan, without placeholder rows."""
    found = []
    for work in plan.work:
        match work:
            case Decode(sequence):
                found.append(Computed(sequence, 1, True))
            case Chunk(sequence, count, is_last):
                found.append(Computed(sequence, count, is_last))
            case _:
                pass
    return found


def step(planner: Scheduler, token: int = 97) -> Plan:
    """Plan, commit, and let each finished chunk produce a token, and those that are forced then."""
    plan = planner.plan()
    planner.commit(plan)
    for item in computed(plan):
        if item.output:
            item.sequence.accept(token)
            item.sequence.jump()
    return plan


def slots_of(plan: Plan) -> list[int]:
    return [work.slot for work in plan.work]
