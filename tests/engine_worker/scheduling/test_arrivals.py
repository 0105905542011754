"""Requests that arrive together: which begin together, and which wait for no other."""

from functools import partial

from engine_worker.scheduling.arrivals import LIKE, MOST_AWAITED
from gpufc.config import Replay
from tests.engine_worker.scheduling import mixed_planner
from tests.engine_worker.scheduling.mixed_planner import add, step
from tests.engine_worker.text.sequences import sequence, spec

scheduler = partial(mixed_planner.scheduler, on_device=True)


def test_requests_that_came_together_begin_together() -> None:
    planner = scheduler(batch_tokens=8)
    add(planner, sequence(spec(1, prompt=6)), sequence(spec(2, prompt=12)))
    assert [step(planner) for _ in range(4)] == [
        [(1, 5, False), (2, 2, False)],
        [(2, 8, False)],
        [(2, 2, True)],
        [(1, 1, True), (2, 1, True)],
    ]


def test_a_request_for_one_token_has_it_at_once() -> None:
    planner = scheduler(batch_tokens=8)
    add(planner, sequence(spec(1, prompt=6, max_tokens=1)), sequence(spec(2, prompt=20)))
    assert step(planner) == [(1, 6, True), (2, 2, False)]


def test_a_ready_sequence_does_not_wait_for_a_later_request() -> None:
    planner = scheduler(batch_tokens=8)
    add(planner, sequence(spec(1, prompt=6)))
    step(planner)
    add(planner, sequence(spec(2, prompt=20)))
    assert step(planner) == [(1, 1, True), (2, 7, False)]


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    planner = scheduler(batch_tokens=8)
    add(planner, sequence(spec(1, prompt=6)), sequence(spec(2, prompt=6 * LIKE + 1)))
    assert step(planner) == [(1, 6, True), (2, 2, False)]
    assert step(planner) == [(1, 1, True), (2, 7, False)]


def test_no_sequence_waits_where_a_stream_runs() -> None:
    planner = scheduler(batch_tokens=8)
    add(planner, sequence(spec(1, prompt=6)))
    step(planner), step(planner)
    add(planner, sequence(spec(2, prompt=6)), sequence(spec(3, prompt=20)))
    assert step(planner) == [(1, 1, True), (2, 6, True), (3, 1, False)]
    assert step(planner) == [(1, 1, True), (2, 1, True), (3, 6, False)]


def test_replays_go_on_by_a_token_and_wait_for_the_others() -> None:
    planner = scheduler(batch_tokens=8)
    add(planner, sequence(spec(1, prompt=4, tokens=(97, 98))), sequence(spec(2, tokens=(97,) * 8)))
    assert [step(planner) for _ in range(3)] == [
        [(1, 6, True), (2, 2, False)],
        [(2, 8, False)],
        [(2, 2, True)],
    ]
    assert step(planner) == [(1, 1, True), (2, 1, True)]


def test_a_replay_does_not_wait_for_a_new_request() -> None:
    planner = scheduler(batch_tokens=8)
    add(planner, sequence(spec(1, prompt=4, tokens=(97, 98))), sequence(spec(2, prompt=12)))
    assert step(planner) == [(1, 6, True), (2, 2, False)]
    assert step(planner) == [(1, 1, True), (2, 7, False)]


def test_no_sequence_waits_for_an_exact_replay_that_is_fed_token_by_token() -> None:
    planner = scheduler(batch_tokens=8)
    exact = sequence(spec(2, prompt=4, tokens=(97,) * 7, replay=Replay.EXACT))
    add(planner, exact, sequence(spec(1, prompt=4, tokens=(97,) * 8)))
    assert [step(planner) for _ in range(4)] == [
        [(1, 4, False), (2, 4, False)],
        [(1, 7, False), (2, 1, False)],
        [(1, 1, True), (2, 1, False)],
        [(1, 1, True), (2, 1, False)],
    ]


def test_a_ready_sequence_waits_for_so_many_batches_and_no_more() -> None:
    for n_prompts, waits in ((MOST_AWAITED, True), (MOST_AWAITED + 1, False)):
        planner = scheduler(max_running=n_prompts, n_slots=n_prompts, batch_tokens=8)
        add(planner, *(sequence(spec(number, prompt=8)) for number in range(n_prompts)))
        assert step(planner)[0] == ((0, 7, False) if waits else (0, 8, True))
