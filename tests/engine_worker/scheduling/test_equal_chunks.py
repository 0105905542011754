"""Prompts on a device, a KV stream each: which are computed together, and what is left of them."""

from engine_worker.scheduling.equal_chunks import TAIL
from gpufc.config import Replay
from tests.engine_worker.scheduling.device_planner import scheduler
from tests.engine_worker.scheduling.device_prompts import passes, prompts
from tests.engine_worker.scheduling.plans import computed, step
from tests.engine_worker.text.sequences import sequence, spec


def test_a_lone_prompt_is_computed_at_once() -> None:
    planner = scheduler()
    (alone,) = prompts(300)
    planner.add(alone)
    step(planner)
    assert alone.n_gained == 1


def test_a_tail_is_computed_at_once_where_no_stream_runs() -> None:
    planner = scheduler()
    (first,) = prompts(300)
    planner.add(first)
    step(planner)
    planner.finish(first)
    again = sequence(spec(2, tuple(first.tokens) + (98,) * (TAIL - 2)))
    planner.add(again)
    step(planner)
    assert again.n_gained == 1


def test_one_that_is_to_be_exact_is_computed_by_itself() -> None:
    planner = scheduler()
    exact = sequence(spec(1, 100, replay=Replay.EXACT))
    planner.add(exact)
    for item in [sequence(spec(number, 100)) for number in (2, 3)]:
        planner.add(item)
    counts = [
        [(item.sequence.request, item.count) for item in computed(step(planner))] for _ in "ab"
    ]
    assert counts == [[(1, 100)], [(1, 1), (2, 100), (3, 100)]]


def test_exact_replays_go_on_together_token_by_token() -> None:
    planner = scheduler()
    for number in range(1, 17):
        tokens = tuple(range(97, 117))
        planner.add(sequence(spec(number, 100, tokens=tokens, replay=Replay.EXACT)))
    n_steps = 0
    while any(not seq.n_gained for seq in (*planner.running, *planner.waiting)):
        step(planner)
        n_steps += 1
    assert n_steps <= 16 + 20 + 1, "each prompt by itself, then all at once"


def test_the_tokens_of_a_tail_are_shared_once_all_are_computed() -> None:
    planner = scheduler()
    short, long = prompts(100, 105)
    planner.add(short)
    planner.add(long)
    for _ in range(8):
        step(planner)
    again = sequence(spec(3, (*long.tokens[:105], 98)))
    planner.add(again)
    step(planner)
    assert again.n_computed == 106


def test_beside_running_streams_chunks_are_equally_long_too() -> None:
    planner = scheduler(batch_tokens=512)
    for item in prompts(50, 50):
        planner.add(item)
    step(planner)
    for item in [sequence(spec(number, 100 + number)) for number in (3, 4, 5)]:
        planner.add(item)
    plan = step(planner)
    assert [item.count for item in computed(plan)] == [1, 1, 103, 103, 103]
    assert passes(plan) == 2
