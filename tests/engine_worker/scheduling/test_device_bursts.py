"""Prompts that arrive together on a device: they begin together, in chunks of equal length."""

from engine_worker.scheduling.equal_chunks import TAIL
from tests.engine_worker.scheduling.device_planner import scheduler
from tests.engine_worker.scheduling.device_prompts import passes, prompts, run_until_all_decode
from tests.engine_worker.scheduling.plans import computed, step
from tests.engine_worker.text.sequences import sequence, spec


def test_many_prompts_of_like_length_take_a_few_passes() -> None:
    planner = scheduler()
    for item in prompts(*(150 + at * 37 % 50 for at in range(64))):
        planner.add(item)
    assert run_until_all_decode(planner) <= 13 + TAIL  # 11,000 tokens, 1,024 at most in each


def test_prompts_that_are_computed_together_are_neighbours_with_equally_many_tokens() -> None:
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


def test_a_tail_comes_token_by_token_beside_streams_that_have_begun() -> None:
    planner = scheduler()
    short, long = prompts(100, 103)
    planner.add(short)
    planner.add(long)
    assert [(item.count, item.output) for item in computed(step(planner))] == [(99, False)] * 2
    gained = [(step(planner).n_tokens, short.n_gained, long.n_gained) for _ in range(4)]
    assert gained == [(2, 1, 0), (2, 2, 0), (2, 3, 0), (2, 4, 1)]


def test_prompts_that_begin_with_the_same_are_computed_together_after_it() -> None:
    planner = scheduler()
    common = tuple(97 + at % 20 for at in range(200))
    for number in range(8):
        own = tuple(97 + (number * 5 + at) % 26 for at in range(40))
        planner.add(sequence(spec(number + 1, common + own)))
    assert step(planner).n_prefill == 239, "one computes what is common"
    assert run_until_all_decode(planner) <= 3
    assert all(seq.n_gained for seq in planner.running)


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
