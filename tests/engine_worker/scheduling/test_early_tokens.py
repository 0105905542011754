"""Half of the first tokens of a burst on a CPU come early, where the rest of it is short."""

import pytest

from engine_worker.scheduling.early_tokens import (
    LEAST_STEP,
    LEAST_TRICKLE,
    LONG,
    PAUSE_S,
    TRICKLE_S,
)
from engine_worker.scheduling.scheduler import Scheduler
from engine_worker.scheduling.step_costs import StepCosts
from tests.engine_worker.scheduling.mixed_planner import add, scheduler, step
from tests.engine_worker.text.sequences import sequence, spec

N_PROMPT = 100


def burst(
    token_s: float,
    *,
    n_prompts: int,
    batch_tokens: int = 512,
    n_prompt: int = N_PROMPT,
    tokens: tuple[int, ...] = (),
    regex: str = "",
) -> Scheduler:
    """Prompts that have arrived, each token of which takes so long."""
    planner = quiet(token_s, n_prompts, batch_tokens)
    specs = [spec(n, prompt=n_prompt, tokens=tokens) for n in range(n_prompts)]
    add(planner, *(sequence(one, regex=regex) for one in specs))
    return planner


def quiet(token_s: float, max_running: int, batch_tokens: int) -> Scheduler:
    costs = StepCosts()
    for n_tokens in (1, batch_tokens):
        costs.computed(n_tokens, token_s * n_tokens)
    return scheduler(max_running, max_running + 1, batch_tokens, costs)


def test_the_first_half_has_its_first_token_early_and_waits_before_the_second() -> None:
    planner = burst(PAUSE_S / (8 * N_PROMPT), n_prompts=8)
    assert [step(planner) for _ in range(3)] == [
        [(number, N_PROMPT, True) for number in range(4)],
        [(number, N_PROMPT, True) for number in range(4, 8)],
        [(number, 1, True) for number in range(8)],
    ]


def test_the_other_half_begins_together() -> None:
    planner = burst(PAUSE_S / (8 * N_PROMPT), n_prompts=8, batch_tokens=250)
    assert [step(planner) for _ in range(5)] == [
        [(0, N_PROMPT, True), (1, N_PROMPT, True), (2, 50, False)],
        [(2, 50, True), (3, N_PROMPT, True)],
        [(4, N_PROMPT - 1, False), (5, N_PROMPT - 1, False), (6, 50, False)],
        [(6, 50, True), (7, N_PROMPT, True)],
        [(number, 1, True) for number in range(8)],
    ]


def test_a_short_rest_is_computed_in_one_step() -> None:
    planner = burst(PAUSE_S / (9 * N_PROMPT), n_prompts=8, n_prompt=LEAST_STEP // 8)
    assert step(planner) == [(number, LEAST_STEP // 8, True) for number in range(8)]


def test_replays_go_on_as_soon_as_they_can() -> None:
    planner = burst(PAUSE_S / (9 * N_PROMPT), n_prompts=8, batch_tokens=250, tokens=(97,))
    size = N_PROMPT + 1
    assert [step(planner) for _ in range(2)] == [
        [(0, size, True), (1, size, True), (2, 250 - 2 * size, False)],
        [(2, 3 * size - 250, True), (3, size, True), (4, 500 - 4 * size, False)],
    ]


def test_a_prefix_that_is_cached_is_no_part_of_the_rest() -> None:
    prefix = tuple(97 + at % 26 for at in range(LONG + N_PROMPT))
    planner = quiet(PAUSE_S / (6 * N_PROMPT), 6, 1024)
    first = sequence(spec(0, prompt=(*prefix, 50)))
    add(planner, first)
    step(planner)
    planner.finish(first)
    add(planner, *(sequence(spec(n, prompt=(*prefix, *own_part(n)))) for n in range(1, 7)))
    assert [output for *_, output in step(planner)] == [True, True, True]


def test_a_prefix_that_the_first_one_computes_is_no_part_of_the_rest_from_then_on() -> None:
    prefix = tuple(97 + at % 26 for at in range(LONG + N_PROMPT))
    planner = quiet(PAUSE_S / (6 * N_PROMPT), 6, 1024)
    add(planner, *(sequence(spec(n, prompt=(*prefix, *own_part(n)))) for n in range(6)))
    while not any(output for *_, output in step(planner)):
        pass
    assert [sum(output for *_, output in step(planner)) for _ in range(2)] == [2, 3]


def own_part(number: int) -> tuple[int, ...]:
    return tuple(97 + (number + at * 7) % 26 for at in range(50))


def test_where_the_rest_is_long_all_wait_until_it_is_short() -> None:
    batch = 50
    n_short = round(PAUSE_S / TRICKLE_S * batch)
    n_prompts = 3 * n_short // (2 * N_PROMPT)
    planner = burst(TRICKLE_S / batch, n_prompts=n_prompts, batch_tokens=batch)
    left, n_begun = n_prompts * N_PROMPT, 0
    while n_begun == 0:
        chunks = step(planner)
        n_begun = sum(output for *_, output in chunks)
        before, left = left, left - sum(count for _, count, _ in chunks)
    assert n_short - N_PROMPT < before <= n_short + n_prompts  # held ones have a token left each
    while planner.waiting or any(not seq.is_decoding for seq in planner.running):
        last = sum(output for *_, output in step(planner))
        n_begun += last
    assert n_begun - last == n_prompts // 2


def test_no_more_than_half_begin_early_where_some_were_held() -> None:
    planner = burst(PAUSE_S / (9 * N_PROMPT), n_prompts=16, batch_tokens=256)
    n_begun = 0
    while planner.waiting or any(not seq.is_decoding for seq in planner.running):
        last = sum(output for *_, output in step(planner))
        n_begun += last
    assert n_begun - last == 8


@pytest.mark.parametrize("n_prompt", [N_PROMPT, 3 * LONG])
def test_a_stream_that_trickles_is_not_stopped(n_prompt: int) -> None:
    """The first one was computed while the others arrived."""
    n_prompts = 30 * N_PROMPT // n_prompt + 4
    token_s = TRICKLE_S / 75
    planner = burst(token_s, n_prompts=n_prompts, batch_tokens=512, n_prompt=n_prompt)
    others = [planner.waiting.pop() for _ in range(n_prompts - 1)]
    while others:
        step(planner)
        if planner.running[0].n_gained or planner.running[0].n_pending <= 512:
            add(planner, *others)
            others = []
    last: dict[int, float] = {}
    gaps: list[float] = []
    now = 0.0
    while any(not seq.is_decoding for seq in planner.running) or planner.waiting:
        chunks = step(planner)
        now += token_s * sum(count for _, count, _ in chunks)
        for request, _, output in chunks:
            if output and request in last:
                gaps.append(now - last[request])
            if output:
                last[request] = now
    assert max(gaps) <= TRICKLE_S * 1.5


def test_beside_long_prompts_streams_trickle_in_whole_batches() -> None:
    size = LONG + 1
    planner = burst(TRICKLE_S / (size + 3), n_prompts=4, batch_tokens=size, n_prompt=size)
    assert [step(planner) for _ in range(3)] == [
        [(0, size, True)],
        [(0, 1, True), (1, size - 1, False)],
        [(0, 1, True), (1, 1, True), (2, size - 2, False)],
    ]


def test_a_slow_processor_has_smaller_steps_beside_a_trickle() -> None:
    size = LONG + 1
    planner = burst(TRICKLE_S / 100, n_prompts=2, batch_tokens=size, n_prompt=size)
    assert [step(planner) for _ in range(2)] == [[(0, 100, False)], [(0, 100, False)]]
    slower = burst(TRICKLE_S / 10, n_prompts=2, batch_tokens=size, n_prompt=size)
    assert step(slower) == [(0, LEAST_TRICKLE, False)]


def test_a_lone_prompt_has_whole_batches() -> None:
    planner = burst(PAUSE_S / (2 * N_PROMPT), n_prompts=1, batch_tokens=N_PROMPT)
    assert step(planner) == [(0, N_PROMPT, True)]


def test_prompts_that_come_during_the_first_step_are_of_the_same_burst() -> None:
    planner = burst(PAUSE_S / (4 * N_PROMPT), n_prompts=3)
    others = [planner.waiting.pop() for _ in range(2)]
    assert step(planner) == [(0, N_PROMPT, True)]
    for other in others:
        planner.add(other)
    assert [request for request, _, _ in step(planner)] == [1, 2]


def test_a_prompt_that_comes_later_stops_no_stream() -> None:
    planner = burst(PAUSE_S / (3 * N_PROMPT), n_prompts=3)
    late = planner.waiting.pop()
    for _ in range(4):
        step(planner)
    planner.add(late)
    assert [request for request, _, _ in step(planner)] == [0, 1, 2]


def test_a_stream_that_was_preempted_comes_back_to_no_burst() -> None:
    planner = burst(PAUSE_S / (4 * N_PROMPT), n_prompts=3)
    for _ in range(6):
        step(planner)
    planner.preempt(planner.running[-1])
    assert [(request, output) for request, _, output in step(planner)][:2] == [(0, True), (1, True)]


OPENING = "an opening: "
GUIDED = [OPENING + "[a-z]*", OPENING + "(a, and so on: |b)[a-z]*"]
"""Answers with a forced opening, and with forced tokens behind the first chosen one as well."""


@pytest.mark.parametrize("regex", GUIDED)
@pytest.mark.parametrize("batch_tokens", [128, 250, 512])
@pytest.mark.parametrize("n_prompts", [3, 8, 16])
def test_a_guided_burst_begins_as_one_of_prompts_as_long(
    regex: str, batch_tokens: int, n_prompts: int
) -> None:
    size = N_PROMPT + len(OPENING)
    token_s = PAUSE_S / (n_prompts * size)
    guided = burst(token_s, n_prompts=n_prompts, batch_tokens=batch_tokens, regex=regex)
    plain = burst(token_s, n_prompts=n_prompts, batch_tokens=batch_tokens, n_prompt=size)
    while plain.waiting or not all(seq.is_decoding and seq.n_gained for seq in plain.running):
        assert step(guided) == step(plain)
    assert step(guided) == [(number, 1, True) for number in range(n_prompts)]


@pytest.mark.parametrize("regex", GUIDED)
def test_half_of_a_guided_burst_begins_early(regex: str) -> None:
    size = N_PROMPT + len(OPENING)
    planner = burst(PAUSE_S / (8 * size), n_prompts=8, regex=regex)
    assert [step(planner) for _ in range(3)] == [
        [(number, size, True) for number in range(4)],
        [(number, size, True) for number in range(4, 8)],
        [(number, 1, True) for number in range(8)],
    ]
