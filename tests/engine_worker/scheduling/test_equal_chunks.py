"""Prompts on a device, a KV stream each: which are computed together, and what is left of them."""

from engine_worker.scheduling.equal_chunks import TAIL
from engine_worker.scheduling.plan import Plan
from engine_worker.scheduling.scheduler import Scheduler
from engine_worker.text.sequence import Sequence
from gpufc.config import Replay
from tests.engine_worker.scheduling.device_planner import scheduler
from tests.engine_worker.scheduling.plans import computed, step
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
    """The passes that it takes."""
    n_passes = 0
    while planner.waiting or any(not seq.n_gained for seq in planner.running):
        plan = step(planner)
        assert plan.n_tokens <= planner.batch_tokens
        n_passes += passes(plan)
    return n_passes


def prompts(*lengths: int) -> list[Sequence]:
    """That have nothing in common."""
    return [
        sequence(spec(number, (number, *(97 + at % 26 for at in range(n - 1)))))
        for number, n in enumerate(lengths, start=1)
    ]


def test_many_prompts_of_like_length_take_a_few_passes() -> None:
    planner = scheduler()
    for item in prompts(*(150 + at * 37 % 50 for at in range(64))):
        planner.add(item)
    assert run_until_all_decode(planner) <= 13 + TAIL  # 11,000 tokens, 1,024 at most in each


def test_those_that_are_computed_together_are_neighbours_and_get_equally_many_tokens() -> None:
    planner = scheduler()
    for item in prompts(160, 400, 162, 155):
        planner.add(item)
    plan = step(planner)
    # the last token of each waits for the others', and what is not like them is a pass of its own
    assert [
        (item.sequence.slot, item.sequence.n_prompt, item.count) for item in computed(plan)
    ] == [
        (0, 155, 154),
        (1, 160, 154),
        (2, 162, 154),
        (3, 400, 399),
    ]
    assert passes(plan) == 2


def test_a_tail_comes_token_by_token_beside_those_that_have_begun() -> None:
    planner = scheduler()
    short, long = prompts(100, 103)
    planner.add(short)
    planner.add(long)
    assert [(item.count, item.output) for item in computed(step(planner))] == [(99, False)] * 2
    gained = [(step(planner).n_tokens, short.n_gained, long.n_gained) for _ in range(4)]
    assert gained == [(2, 1, 0), (2, 2, 0), (2, 3, 0), (2, 4, 1)]


def test_a_lone_prompt_is_computed_at_once() -> None:
    planner = scheduler()
    (alone,) = prompts(300)
    planner.add(alone)
    step(planner)
    assert alone.n_gained == 1


def test_what_little_is_left_is_computed_at_once_where_nobody_runs() -> None:
    planner = scheduler()
    (first,) = prompts(300)
    planner.add(first)
    step(planner)
    planner.finish(first)
    again = sequence(spec(2, tuple(first.tokens) + (98,) * (TAIL - 2)))
    planner.add(again)
    step(planner)
    assert again.n_gained == 1


def test_prompts_that_begin_with_the_same_are_computed_together_after_it() -> None:
    planner = scheduler()
    common = tuple(97 + at % 20 for at in range(200))
    for number in range(8):
        own = tuple(97 + (number * 5 + at) % 26 for at in range(40))
        planner.add(sequence(spec(number + 1, common + own)))
    assert step(planner).n_prefill == 239, "one computes what is common"
    assert run_until_all_decode(planner) <= 3
    assert all(seq.n_gained for seq in planner.running)


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


def test_what_is_left_of_a_burst_s_longest_prompts_is_a_tail() -> None:
    planner = scheduler()
    for item in prompts(100, 100 + TAIL):
        planner.add(item)
    assert [step(planner).n_tokens for _ in range(2)] == [198, 2]


def test_prompts_that_are_not_alike_share_a_step_where_they_fit_whole() -> None:
    planner = scheduler()
    for item in prompts(50, 100, 200, 400, 800):
        planner.add(item)
    assert [item.count for item in computed(step(planner))] == [50, 100, 200, 399]
    assert [item.count for item in computed(step(planner))] == [1, 1, 1, 1, 800]


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
