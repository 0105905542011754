"""Replays of many lengths at once, as they arrive when another worker has died."""

import random

import pytest

from engine_worker.backend.profile import Shape
from engine_worker.kv.edits import Copy, Remove
from engine_worker.scheduling import overlapped_replays
from engine_worker.scheduling.overlapped_replays import CHUNK
from engine_worker.text.sequence import Sequence
from gpufc.config import Replay
from tests.engine_worker.scheduling.device_planner import running, scheduler
from tests.engine_worker.scheduling.device_prompts import passes, run_until_all_decode
from tests.engine_worker.scheduling.plans import computed, step
from tests.engine_worker.text.sequences import sequence, spec


def replay(number: int, n_generated: int, how: Replay = Replay.FAST) -> Sequence:
    prompt = (number, *(97 + at % 26 for at in range(11)))
    tokens = tuple(97 + (number + at) % 26 for at in range(n_generated))
    return sequence(spec(number, prompt, tokens=tokens, replay=how, max_tokens=4096))


def replays(n: int) -> list[Sequence]:
    dice = random.Random(n)
    return [replay(100 + number, dice.randint(CHUNK, 300)) for number in range(n)]


def n_passes(n: int) -> int:
    planner = running(10, batch_tokens=2048)
    for item in replays(n):
        planner.add(item)
    return run_until_all_decode(planner)


def test_replays_of_any_lengths_take_hardly_more_passes_than_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = n_passes(20)
    monkeypatch.setattr(overlapped_replays, "CHUNK", 1 << 20)
    assert together <= 3 * -(-312 // CHUNK)
    assert together < n_passes(20) / 1.5


def test_a_last_chunk_computes_again_what_it_needs_to_be_as_long() -> None:
    planner = running(10, batch_tokens=2048)
    one = replay(20, CHUNK + 10)  # behind a prompt of 12
    planner.add(one)
    first = step(planner)
    assert [item.count for item in computed(first) if item.sequence is one] == [CHUNK]
    plan = planner.plan()
    assert [item for item in computed(plan) if item.sequence is one] == [(one, CHUNK, True)]
    (work,) = [item for item in plan.work if item.slot == one.slot]
    assert work.position == 12 + 10
    assert plan.edits == [Remove(work.slot, work.position)]
    assert work.tokens() == one.tokens[-CHUNK:]
    planner.commit(plan)
    assert one.n_pending == 0


def test_a_plan_that_is_made_again_is_the_same_plan() -> None:
    planner = running(10, batch_tokens=2048)
    one = replay(20, CHUNK + 10)
    planner.add(one)
    step(planner)
    before = planner.plan()
    again = planner.plan()
    assert [(w.slot, w.position, w.tokens()) for w in again.work] == [
        (w.slot, w.position, w.tokens()) for w in before.work
    ]


def test_no_prefix_is_copied_from_cells_that_are_computed_again() -> None:
    planner = running(10, batch_tokens=2048)
    one = replay(20, CHUNK + 10)
    planner.add(one)
    step(planner)
    planner.add(sequence(spec(21, (*one.tokens[:CHUNK], 98))))
    plan = step(planner)
    copied = [edit.n_tokens for edit in plan.edits if isinstance(edit, Copy)]
    assert all(n <= 22 for n in copied)


@pytest.mark.parametrize("how", [Replay.EXACT, Replay.FAST])
def test_exact_and_short_replays_are_computed_as_before(how: Replay) -> None:
    planner = running(10, batch_tokens=2048)
    one = replay(20, 40 if how is Replay.FAST else 100, how)
    planner.add(one)
    plan = step(planner)
    counts = [item.count for item in computed(plan) if item.sequence is one]
    assert counts == ([52] if how is Replay.FAST else [12])
    assert passes(plan) <= 2


@pytest.mark.parametrize(("n_running", "batch_tokens"), [(10, 64), (30, CHUNK + 20)])
def test_a_step_without_room_for_a_chunk_computes_what_it_has_room_for(
    n_running: int, batch_tokens: int
) -> None:
    planner = running(n_running, batch_tokens)
    one = replay(100, 200)
    planner.add(one)
    room = batch_tokens - n_running
    for _ in range(-(-len(one.tokens) // room)):
        assert step(planner).n_tokens <= batch_tokens
    assert one.n_gained == 1


def test_nothing_is_computed_again_of_a_replay_whose_cells_are_known() -> None:
    planner = running(10, batch_tokens=2048)
    first = replay(20, 200)
    planner.add(first)
    while not first.n_gained:
        step(planner)
    tokens = tuple(first.tokens)
    again = sequence(spec(21, tokens[:12], tokens=tokens[12:], max_tokens=4096))
    planner.add(again)
    plan = step(planner)
    assert [item for item in computed(plan) if item.sequence is again] == [(again, 1, True)]
    assert not [edit for edit in plan.edits if isinstance(edit, Remove)]


def test_an_exact_replay_shares_its_step_with_no_other_one() -> None:
    planner = running(1, batch_tokens=2048)
    exact = sequence(spec(30, CHUNK + 4, tokens=(97, 98), replay=Replay.EXACT, max_tokens=4096))
    other = replay(31, 300)
    planner.add(exact)
    planner.add(other)
    plan = step(planner)
    assert [item.sequence for item in computed(plan) if item.count > 1] == [exact]
    run_until_all_decode(planner)
    assert other.n_gained


def test_no_cells_are_forgotten_behind_which_the_window_is_lost() -> None:
    n_shared = 150
    planner = scheduler(
        32, 2048, shape=Shape.FIXED, keeps_prefix=lambda _slot, n_tokens: n_tokens >= n_shared
    )
    first = replay(20, n_shared)
    planner.add(first)
    while not first.n_gained:
        step(planner)
    known = tuple(first.tokens[:n_shared])
    one = sequence(spec(21, known[:12], tokens=(*known[12:], *range(20)), max_tokens=4096))
    planner.add(one)
    plan = step(planner)
    assert [item for item in computed(plan) if item.sequence is one] == [(one, 20, True)]
    assert not [edit for edit in plan.edits if isinstance(edit, Remove)]
