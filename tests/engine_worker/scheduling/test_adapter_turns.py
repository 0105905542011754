"""Turns of adapters: one set a step, and every set in turn."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_worker.backend.fake.backend import FakeBackend, expected_tokens
from engine_worker.backend.fake.vocabulary import tokenize
from engine_worker.backend.port import Batch
from engine_worker.scheduling.adapter_turns import TURN_S, AdapterTurns
from engine_worker.scheduling.plan import Plan
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.scheduling.turns import LONGEST_S, AllAtOnce
from gpufc.adapters import Adapters, AdapterUse
from gpufc.config import BackendKind, KvUnified, ModelConfig
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.scheduling.mixed_planner import add, scheduler, step
from tests.engine_worker.text.sequences import sequence, spec

A: Adapters = (AdapterUse("a"),)
B: Adapters = (AdapterUse("b"),)
HALF: Adapters = (AdapterUse("a", 0.5),)
NOTHING = Plan([], [], [])


def test_without_adapters_every_sequence_has_every_turn() -> None:
    turns = AdapterTurns(AllAtOnce(), StepCosts())
    sequences = [sequence(spec(number)) for number in (1, 2)]
    for each in sequences:
        turns.arrived(each)
    turns.settle(sequences)
    assert turns.of(sequences) == sequences


def test_each_set_of_adapters_has_a_step_in_turn() -> None:
    turns = AdapterTurns(AllAtOnce(), StepCosts())
    chosen = [A, (), B, A, HALF]
    sequences = [sequence(spec(n, adapters=a)) for n, a in enumerate(chosen, 1)]
    for each in sequences:
        turns.arrived(each)
    steps = []
    for _ in range(8):
        turns.settle(sequences)
        steps.append([seq.request for seq in turns.of(sequences)])
        turns.passed(NOTHING, sequences)
    assert sorted(steps[:4]) == [[1, 4], [2], [3], [5]]
    assert steps[4:] == steps[:4]


def test_a_set_without_sequences_loses_its_turn() -> None:
    turns = AdapterTurns(AllAtOnce(), StepCosts())
    one, other = sequence(spec(1, adapters=A)), sequence(spec(2, adapters=B))
    for each in (one, other):
        turns.arrived(each)
    turns.settle([one, other])
    (first,) = turns.of([one, other])
    left = [seq for seq in (one, other) if seq is not first]
    turns.settle(left)
    assert turns.of(left) == left


SETS: list[Adapters] = [(), A, B, HALF]


def flat(step_s: float) -> StepCosts:
    """Each step takes as long."""
    costs = StepCosts()
    for n_tokens in (1, 512):
        costs.computed(n_tokens, step_s)
    return costs


@settings(max_examples=60, deadline=None)
@given(
    streams=st.lists(st.sampled_from(SETS), min_size=1, max_size=2),
    flow=st.lists(st.tuples(st.sampled_from(SETS), st.integers(1, 9)), min_size=1, max_size=60),
    n_steps=st.integers(1, 4),
)
def test_no_flow_of_requests_keeps_a_stream_waiting(
    streams: list[Adapters], flow: list[tuple[Adapters, int]], n_steps: int
) -> None:
    """Before every stream has a token, each other set has one turn of at most `n_steps` steps."""
    costs = flat(TURN_S / (n_steps + 0.5))
    planner = scheduler(max_running=4, batch_tokens=16, costs=costs)
    held = [sequence(spec(n, 4, adapters=a)) for n, a in enumerate(streams)]
    add(planner, *held)
    while not all(one.n_gained > 2 for one in held):  # they have left their burst
        step(planner)
    coming = [
        sequence(spec(n, 4, adapters=a, max_tokens=most)) for n, (a, most) in enumerate(flow, 9)
    ]
    add(planner, *coming)
    last = {one: (0, one.n_gained) for one in held}
    for number in range(1, 40):
        step(planner)
        for one in [one for one in planner.running if one.finish is not None]:
            planner.finish(one)
        last = {
            one: (at, n) if one.n_gained == n else (number, one.n_gained)
            for one, (at, n) in last.items()
        }
        assert all(number - at <= n_steps * (len(SETS) - 1) for at, _ in last.values())


@pytest.mark.parametrize("n_steps", [1, 3])
def test_a_turn_has_as_many_plain_steps_as_there_is_time_for(n_steps: int) -> None:
    planner = scheduler(batch_tokens=16, costs=flat(TURN_S / (n_steps + 0.5)))
    add(planner, sequence(spec(1, adapters=A)), sequence(spec(2, adapters=B)))
    assert [step(planner) for _ in range(2)] == [[(1, 4, True)], [(2, 4, True)]]
    turns = [step(planner)[0][0] for _ in range(4 * n_steps)]
    assert turns == ([1] * n_steps + [2] * n_steps) * 2


def test_turns_of_several_sets_share_the_time_that_another_one_waits() -> None:
    """Of three sets each one waits for two steps of either other one, and not for four."""
    planner = scheduler(batch_tokens=16, costs=flat(TURN_S / 4.5))
    add(planner, *(sequence(spec(n, adapters=a)) for n, a in enumerate((A, B, HALF), 1)))
    for _ in range(3):
        step(planner)
    assert [step(planner)[0][0] for _ in range(12)] == [1, 1, 2, 2, 3, 3] * 2


@pytest.mark.parametrize("others", [[A], [A, HALF], [A, HALF, ()]])
def test_prompts_of_other_sets_delay_a_stream_by_a_bounded_time(others: list[Adapters]) -> None:
    costs = StepCosts()
    token_s = LONGEST_S / 96
    for n_tokens in (1, 512):
        costs.computed(n_tokens, n_tokens * token_s)
    planner = scheduler(max_running=8, n_slots=9, batch_tokens=512, costs=costs)
    stream = sequence(spec(1, 4, adapters=B))
    add(planner, stream)
    for _ in range(3):
        step(planner)
    prompts = [sequence(spec(n, 900, adapters=a)) for n, a in enumerate(others, 2)]
    add(planner, *prompts)
    waited, longest = 0, 0
    while not all(one.n_gained for one in prompts):
        n_gained = stream.n_gained
        waited += sum(count for _, count, _ in step(planner))
        if stream.n_gained > n_gained:
            longest, waited = max(longest, waited), 0
    assert 80 <= longest <= 96 + 1 + len(others)


def test_prompts_have_whole_batches_while_no_stream_of_another_set_waits() -> None:
    costs = StepCosts()
    for n_tokens in (1, 64):
        costs.computed(n_tokens, n_tokens * LONGEST_S)
    planner = scheduler(batch_tokens=64, costs=costs)
    add(planner, sequence(spec(1, 90, adapters=A)), sequence(spec(2, 90, adapters=B)))
    assert [step(planner) for _ in range(2)] == [[(1, 64, False)], [(2, 64, False)]]


class OneSetABatch(FakeBackend):
    """Notes the adapters of each batch."""

    def begin(self, batch: Batch) -> None:
        self.seen = [*getattr(self, "seen", []), batch.adapters]
        super().begin(batch)


@settings(max_examples=30, deadline=None)
@given(
    chosen=st.lists(st.sampled_from([(), A, B, HALF]), min_size=1, max_size=10),
    unified=st.booleans(),
    cells=st.sampled_from([160, 4096]),
)
def test_every_text_is_that_of_its_adapters(
    chosen: list[Adapters], unified: bool, cells: int
) -> None:
    config = ModelConfig(
        backend=BackendKind.FAKE,
        kv_cells=cells if unified else 4096,
        n_ctx=128,
        kv_unified=KvUnified.TRUE if unified else KvUnified.FALSE,
        adapters=("a=1", "b=2"),
    )
    backend = OneSetABatch.load(config, 6, lambda _: None)
    run = EngineRun(backend, max_running=3)
    prompt = tuple(tokenize("the same prompt", add_special=True))
    run.run(*(spec(n, prompt, max_tokens=12, adapters=a) for n, a in enumerate(chosen, 1)))
    for number, adapters in enumerate(chosen, 1):
        assert run.tokens(number) == expected_tokens(prompt, 12, adapters)
    assert set(backend.seen) == set(chosen)
