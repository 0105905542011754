"""Replays of a large model on a device: one after another, the shortest first."""

import random
from collections import defaultdict
from statistics import median

import msgspec
import pytest

from engine_worker.backend.fake.backend import expected_tokens
from engine_worker.kv.edits import Remove
from engine_worker.scheduling.scheduler import Scheduler
from engine_worker.scheduling.whole_replays import LEAST_PIECE, MOST_TOKENS, STEP_TOKENS
from engine_worker.text.sequence import Sequence
from engine_worker.tuning import H100
from gpufc.config import Replay
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.engine.recorded_device import N_STREAMS, device, prompt
from tests.engine_worker.scheduling.device_planner import running
from tests.engine_worker.scheduling.plans import computed, step
from tests.engine_worker.text.sequences import sequence, spec

LARGE_S = H100.whole_replays_token_s
"""A prompt token of a model that is just large enough."""
N_BESIDE = 10
PROMPT = 12


def replay(number: int, n_tokens: int, how: Replay = Replay.FAST) -> Sequence:
    """A replay of so many tokens, its prompt included."""
    dice = random.Random(number)
    known = tuple(97 + dice.randrange(26) for _ in range(n_tokens))
    asked = spec(number, known[:PROMPT], tokens=known[PROMPT:], replay=how, max_tokens=9000)
    return sequence(asked, n_ctx=10_000)


def replays(n: int) -> list[Sequence]:
    dice = random.Random(n)
    return [replay(100 + number, dice.randint(PROMPT + 1, 450)) for number in range(n)]


def beside_streams(n: int = N_BESIDE, batch_tokens: int = 2048) -> Scheduler:
    return running(n, batch_tokens, prompt_token_s=LARGE_S)


def chunks(planner: Scheduler, *wanted: Sequence) -> dict[Sequence, list[int]]:
    """The tokens of each step for each of these, until all have gained a token."""
    found: dict[Sequence, list[int]] = defaultdict(list)
    while not all(one.n_gained for one in wanted):
        for item in computed(step(planner)):
            if item.sequence in wanted and item.sequence.n_gained <= 1:
                found[item.sequence].append(item.count)
    return found


def test_every_replay_is_computed_in_one_chunk_and_no_token_twice() -> None:
    planner, waiting = beside_streams(20), replays(20)
    for one in waiting:
        planner.add(one)
    lengths = {one: [len(one.tokens)] for one in waiting}
    assert chunks(planner, *waiting) == lengths


def test_the_shorter_a_replay_the_earlier_it_goes_on() -> None:
    planner, waiting = beside_streams(20), replays(20)
    for one in waiting:
        planner.add(one)
    order: list[int] = []
    while len(order) < len(waiting):
        begun = {one for one in waiting if one.n_gained}
        step(planner)
        gained = [len(one.spec.tokens) for one in waiting if one.n_gained and one not in begun]
        order += sorted(gained)
    assert order == sorted(order)


def test_steps_are_filled_and_end_before_running_streams_have_waited_long() -> None:
    planner, waiting = beside_streams(20), replays(20)
    for one in waiting:
        planner.add(one)
    sizes = []
    while not all(one.n_gained for one in waiting):
        sizes.append(step(planner).n_prefill)
    assert all(STEP_TOKENS <= size <= MOST_TOKENS for size in sizes[:-1])


def test_half_of_the_replays_go_on_after_fewer_tokens_than_in_chunks_of_one_length() -> None:
    def tokens_before_half(prompt_token_s: float) -> float:
        planner, waiting = running(32, 2048, prompt_token_s=prompt_token_s), replays(32)
        for one in waiting:
            planner.add(one)
        n_tokens, before = 0, {}
        while len(before) < len(waiting):
            n_tokens += step(planner).n_tokens
            for one in waiting:
                if one.n_gained:
                    before.setdefault(one, n_tokens)
        return median(before.values())

    assert tokens_before_half(LARGE_S) < 0.7 * tokens_before_half(0.0)


@pytest.mark.parametrize("n_tokens", [MOST_TOKENS + 3, 2 * MOST_TOKENS + 3, 5 * STEP_TOKENS + 3])
def test_a_replay_longer_than_a_step_comes_in_pieces(n_tokens: int) -> None:
    planner, one = beside_streams(), replay(100, n_tokens)
    planner.add(one)
    counts = chunks(planner, one)[one]
    assert sum(counts) == n_tokens
    assert all(count == STEP_TOKENS for count in counts[:-1])
    assert counts[-1] <= MOST_TOKENS


def test_a_piece_fills_up_a_step_where_it_is_worth_a_pass() -> None:
    for n_first, filled in ((STEP_TOKENS - LEAST_PIECE, LEAST_PIECE), (STEP_TOKENS - 10, 0)):
        planner, first, long = beside_streams(), replay(100, n_first), replay(101, 3000)
        planner.add(first)
        planner.add(long)
        found = {item.sequence: item.count for item in computed(step(planner))}
        assert found[first] == n_first
        assert found.get(long, 0) == filled


def test_the_rest_of_a_replay_is_no_tail_that_comes_token_by_token() -> None:
    room = 200
    planner, one = beside_streams(N_BESIDE, room + N_BESIDE), replay(100, 3 * room + 5)
    planner.add(one)
    assert chunks(planner, one)[one] == [room, room, room, 5]


def test_a_plan_that_is_made_again_is_the_same_plan() -> None:
    planner = beside_streams()
    planner.add(replay(100, 3000))
    step(planner)
    before, again = planner.plan(), planner.plan()
    assert [(w.slot, w.position, w.tokens()) for w in again.work] == [
        (w.slot, w.position, w.tokens()) for w in before.work
    ]


def test_nothing_is_computed_again_of_a_replay_whose_cells_are_known() -> None:
    planner, first = beside_streams(), replay(20, 200)
    planner.add(first)
    while not first.n_gained:
        step(planner)
    tokens = tuple(first.tokens)
    again = sequence(spec(21, tokens[:PROMPT], tokens=tokens[PROMPT:], max_tokens=4096))
    planner.add(again)
    plan = step(planner)
    assert [item for item in computed(plan) if item.sequence is again] == [(again, 1, True)]
    assert not [edit for edit in plan.edits if isinstance(edit, Remove)]


def test_prompts_beside_replays_make_no_step_longer() -> None:
    planner = beside_streams()
    planner.add(replay(100, 400))
    planner.add(sequence(spec(101, MOST_TOKENS - 100), n_ctx=5000))
    assert step(planner).n_prefill == 400
    assert step(planner).n_prefill == MOST_TOKENS - 100


def test_an_exact_replay_shares_its_step_with_no_other_one() -> None:
    planner = beside_streams()
    exact = sequence(spec(30, 100, tokens=(97, 98), replay=Replay.EXACT, max_tokens=4096))
    other = replay(31, 300)
    planner.add(exact)
    planner.add(other)
    plan = step(planner)
    assert [item.sequence for item in computed(plan) if item.count > 1] == [exact]
    assert chunks(planner, other)[other] == [300]


def test_streams_of_a_large_model_go_on_with_their_own_tokens() -> None:
    fake = device()
    fake.facts = msgspec.structs.replace(fake.facts, n_params=8_000_000_000)
    run = EngineRun(fake, max_running=N_STREAMS, batch_tokens=128)
    dice = random.Random(1)
    wanted = {}
    for number in range(1, 2 * N_STREAMS):
        asked = prompt(f"{number} words " * dice.randint(1, 6))
        known = expected_tokens(asked, 60)
        n_known = dice.randint(1, 50)
        wanted[number] = known[n_known:]
        run.engine.inbox.put(spec(number, asked, tokens=tuple(known[:n_known]), max_tokens=60))
    run.run()
    assert {number: run.tokens(number) for number in wanted} == wanted
