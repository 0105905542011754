"""First tokens of a burst on a CPU come as soon as they can, where the rest of it is short."""

from engine_worker.scheduling.early_tokens import EARLY_S, LEAST_STEP, LEAST_TRICKLE, LONG
from engine_worker.scheduling.scheduler import Scheduler
from engine_worker.scheduling.step_costs import StepCosts
from tests.engine_worker.scheduling.mixed_planner import add, scheduler, step
from tests.engine_worker.text.sequences import sequence, spec

N_PROMPT = 100


def burst(
    token_s: float, *, n_prompts: int, batch_tokens: int = 512, n_prompt: int = N_PROMPT
) -> Scheduler:
    """Prompts that have arrived, each token of which takes so long."""
    costs = StepCosts()
    for n_tokens in (1, batch_tokens):
        costs.computed(n_tokens, token_s * n_tokens)
    planner = scheduler(n_prompts, n_prompts, batch_tokens, costs)
    add(planner, *(sequence(spec(number, prompt=n_prompt)) for number in range(n_prompts)))
    return planner


def test_a_sequence_has_its_first_token_at_once_and_waits_before_the_second() -> None:
    planner = burst(EARLY_S / (3 * N_PROMPT), n_prompts=3)
    assert [step(planner) for _ in range(4)] == [
        [(0, N_PROMPT, True), (1, 50, False)],
        [(1, 50, True), (2, 78, False)],
        [(2, 22, True)],
        [(0, 1, True), (1, 1, True), (2, 1, True)],
    ]


def test_a_step_computes_half_of_what_is_left_and_no_few_tokens() -> None:
    planner = burst(EARLY_S / (8 * N_PROMPT), n_prompts=8)
    sizes = [sum(count for _, count, _ in step(planner)) for _ in range(5)]
    assert sizes == [400, 200, LEAST_STEP, 800 - 400 - 200 - LEAST_STEP, 8]


def test_where_the_rest_is_long_all_wait_until_it_is_short() -> None:
    planner = burst(EARLY_S / N_PROMPT, n_prompts=3, batch_tokens=N_PROMPT)
    steps = [step(planner) for _ in range(5)]
    assert [any(output for *_, output in done) for done in steps] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert {request for request, _, output in steps[2] if output} == {0, 1}
    assert steps[4] == [(0, 1, True), (1, 1, True), (2, 1, True)]


def test_beside_long_prompts_streams_trickle_in_whole_batches() -> None:
    size = LONG + 1
    planner = burst(EARLY_S / (size + 3), n_prompts=4, batch_tokens=size, n_prompt=size)
    assert [step(planner) for _ in range(3)] == [
        [(0, size, True)],
        [(0, 1, True), (1, size - 1, False)],
        [(0, 1, True), (1, 1, True), (2, size - 2, False)],
    ]


def test_a_slow_processor_has_smaller_steps_beside_a_trickle() -> None:
    size = LONG + 1
    planner = burst(EARLY_S / 100, n_prompts=2, batch_tokens=size, n_prompt=size)
    assert [step(planner) for _ in range(2)] == [[(0, 100, False)], [(0, 100, False)]]
    slower = burst(EARLY_S / 10, n_prompts=2, batch_tokens=size, n_prompt=size)
    assert step(slower) == [(0, LEAST_TRICKLE, False)]


def test_a_lone_prompt_has_whole_batches() -> None:
    planner = burst(EARLY_S / (2 * N_PROMPT), n_prompts=1, batch_tokens=N_PROMPT)
    assert step(planner) == [(0, N_PROMPT, True)]


def test_prompts_that_come_during_the_first_step_are_of_the_same_burst() -> None:
    planner = burst(EARLY_S / (4 * N_PROMPT), n_prompts=3)
    others = [planner.waiting.pop() for _ in range(2)]
    assert step(planner) == [(0, N_PROMPT, True)]
    for other in others:
        planner.add(other)
    assert [request for request, _, _ in step(planner)] == [1, 2]


def test_a_prompt_that_comes_later_stops_no_stream() -> None:
    planner = burst(EARLY_S / (3 * N_PROMPT), n_prompts=3)
    late = planner.waiting.pop()
    for _ in range(4):
        step(planner)
    planner.add(late)
    assert [request for request, _, _ in step(planner)] == [0, 1, 2]


def test_a_stream_that_was_preempted_comes_back_to_no_burst() -> None:
    planner = burst(EARLY_S / (4 * N_PROMPT), n_prompts=3)
    for _ in range(6):
        step(planner)
    planner.preempt(planner.running[-1])
    assert [(request, output) for request, _, output in step(planner)][:2] == [(0, True), (1, True)]
