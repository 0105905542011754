"""A crowd waits while the prompt of another scope is computed, and not for long."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from engine_worker.backend.fake.backend import FakeBackend, expected_tokens
from engine_worker.backend.fake.vocabulary import tokenize
from engine_worker.scheduling import newcomers
from engine_worker.scheduling.policies import scheduler_for
from engine_worker.scheduling.scheduler import Scheduler
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.text.sequence import Sequence
from gpufc.adapters import AdapterUse
from gpufc.config import BackendKind, KvUnified, ModelConfig
from gpufc.protocol import MIN_CHUNK
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.scheduling.mixed_planner import add, profile, step
from tests.engine_worker.text.sequences import sequence, spec

SLOTS = 4
BATCH = 16
TOKEN_S = 0.01


def linear() -> StepCosts:
    costs = StepCosts()
    for n_tokens in (1, 4, 16):
        costs.computed(n_tokens, TOKEN_S * n_tokens)
    return costs


def crowded(
    costs: StepCosts | None = None, n: int = SLOTS - 1, slots: int = SLOTS, scope: str = "a"
) -> Scheduler:
    """A crowd of `n` sequences of a scope that decode, numbered from 1 on."""
    made = scheduler_for(
        profile(slots + 2), max_running=slots, batch_tokens=BATCH, costs=costs or linear()
    )
    add(made, *(of(scope, number, 2) for number in range(1, n + 1)))
    while not all(seq.n_gained for seq in made.running) or len(made.running) < n:
        step(made)
    return made


def of(
    scope: str, number: int, n_prompt: int = 4, max_tokens: int | None = None, regex: str = ""
) -> Sequence:
    return sequence(spec(number, n_prompt, scope=scope, max_tokens=max_tokens), regex=regex)


def numbers(work: list[tuple[int, int, bool]]) -> set[int]:
    return {number for number, _, _ in work}


def test_a_crowd_waits_for_the_prompt_of_another_scope() -> None:
    made = crowded()
    add(made, of("b", 9, 20))
    assert step(made) == [(9, 16, False)]
    assert step(made) == [(9, 4, True)]
    assert numbers(step(made)) == {1, 2, 3, 9}


def test_a_forced_opening_makes_no_stream_of_a_newcomer() -> None:
    made = crowded()
    add(made, of("b", 9, 14, regex="opening[a-z]*"))
    assert step(made) == [(9, 16, False)]
    assert step(made) == [(9, 5, True)]
    assert numbers(step(made)) == {1, 2, 3, 9}


def test_the_crowd_s_own_prompt_does_not_let_it_wait() -> None:
    made = crowded()
    add(made, of("a", 9, 10))
    assert numbers(step(made)) == {1, 2, 3, 9}


def test_the_crowd_s_prompts_wait_as_well() -> None:
    made = crowded(n=2)
    add(made, of("a", 3, 3), of("b", 9, 20))
    assert numbers(step(made)) == {9}
    assert numbers(step(made)) == {9}
    assert 3 in numbers(step(made))


def test_a_third_scope_goes_on() -> None:
    made = crowded(n=4, slots=6)
    add(made, of("c", 5, 2))
    assert numbers(step(made)) == {5}
    add(made, of("b", 9, 20))
    assert numbers(step(made)) == {5, 9}


def test_half_of_the_slots_is_no_crowd() -> None:
    made = crowded(n=SLOTS // 2)
    add(made, of("b", 9, 20))
    assert numbers(step(made)) == {1, 2, 9}


def test_a_prompt_that_yields_lets_none_wait() -> None:
    made = crowded()
    add(made, sequence(structs.replace(spec(9, 20, scope="network"), yields=True)))
    assert numbers(step(made)) == {1, 2, 3, 9}


def test_sequences_without_a_key_are_no_crowd() -> None:
    made = crowded(scope="")
    add(made, of("b", 9, 20))
    assert numbers(step(made)) == {1, 2, 3, 9}


def test_a_crowd_s_wait_is_bounded_and_given_back() -> None:
    costs = linear()
    made = crowded(costs)
    add(made, of("b", 9, 900))
    waited_s, waits = 0.0, []
    for _ in range(200):
        work = step(made)
        took_s = costs.seconds(sum(count for _, count, _ in work), len(work)) or 0.0
        if numbers(work) == {9}:
            waited_s += took_s
        elif waited_s:
            waits.append(waited_s)
            waited_s = 0.0
    assert len(waits) > 2
    assert all(wait <= newcomers.LONGEST_S + TOKEN_S * BATCH for wait in waits)


def test_a_crowd_computes_for_as_long_as_it_has_waited() -> None:
    costs = linear()
    made = crowded(costs)
    without_s = with_s = 0.0
    for number in range(9, 300):
        add(made, of("b", number, 14, max_tokens=1))
        work = step(made)
        took_s = costs.seconds(sum(count for _, count, _ in work), len(work)) or 0.0
        if numbers(work) & {1, 2, 3}:
            with_s += took_s
        else:
            without_s += took_s
        for seq in [seq for seq in made.running if seq.spec.scope == "b" and seq.n_gained]:
            made.finish(seq)
    assert without_s > 2
    assert with_s >= without_s - newcomers.LONGEST_S - TOKEN_S * BATCH


@pytest.mark.parametrize(("n_prompt", "n_out", "at_once"), [(600, 1, 1), (3000, 20, 2)])
def test_prompts_without_end_leave_a_crowd_most_of_its_rate(
    monkeypatch: pytest.MonkeyPatch, n_prompt: int, n_out: int, at_once: int
) -> None:
    with_newcomers_first = _crowd_tokens(n_prompt, n_out, at_once)
    monkeypatch.setattr(newcomers.NewcomersFirst, "over", lambda inner, *_: inner)
    assert with_newcomers_first >= 0.6 * _crowd_tokens(n_prompt, n_out, at_once)


def _crowd_tokens(n_prompt: int, n_out: int, at_once: int) -> int:
    """Tokens that six sequences of a crowd gain in ten minutes beside prompts of another scope."""
    token_s, elapsed_s, number = 0.004, 0.0, 100
    costs = StepCosts()
    for n_tokens in (1, 16, 512):
        costs.computed(n_tokens, token_s * n_tokens)
    made = scheduler_for(profile(10), max_running=8, batch_tokens=512, costs=costs)
    crowd = [sequence(spec(one, 2, scope="a"), n_ctx=10**6) for one in range(1, 7)]
    add(made, *crowd)
    while elapsed_s < 600:
        held = [seq for seq in (*made.running, *made.waiting) if seq.spec.scope == "b"]
        for _ in range(at_once - len(held)):
            number += 1
            add(made, sequence(spec(number, n_prompt, scope="b"), n_ctx=10**6))
        elapsed_s += token_s * sum(count for _, count, _ in step(made))
        for seq in [one for one in held if one.n_gained >= n_out]:
            made.finish(seq)
    return sum(seq.n_gained for seq in crowd)


def test_a_step_in_which_a_crowd_waits_is_no_longer_than_its_wait_may_be() -> None:
    costs = StepCosts()
    for n_tokens in (1, 16, 512):
        costs.computed(n_tokens, 0.05 * n_tokens)
    made = scheduler_for(profile(10), max_running=8, batch_tokens=512, costs=costs)
    add(made, *(of("a", number, 2) for number in range(1, 7)))
    while not all(seq.n_gained for seq in made.running) or len(made.running) < 6:
        step(made)
    add(made, of("b", 9, 900))
    work = step(made)
    assert numbers(work) == {9}
    assert 0.05 * sum(count for _, count, _ in work) <= newcomers.LONGEST_S + 0.05 * MIN_CHUNK


def test_a_newcomer_without_its_adapters_turn_lets_none_wait() -> None:
    made = crowded()
    late = sequence(spec(9, 20, scope="b", adapters=(AdapterUse("x"),)))
    add(made, late)
    seen = [numbers(step(made)) for _ in range(8)]
    assert all(seen)
    assert {9} in seen
    assert any(1 in each for each in seen)


def test_unknown_costs_let_the_crowd_wait_for_one_step() -> None:
    made = crowded(StepCosts())
    add(made, of("b", 9, 40))
    assert numbers(step(made)) == {9}
    assert numbers(step(made)) == {1, 2, 3, 9}


@settings(max_examples=40, deadline=None)
@given(
    scopes=st.lists(st.sampled_from("aaaabc"), min_size=1, max_size=12),
    lengths=st.lists(st.integers(1, 60), min_size=12, max_size=12),
    unified=st.booleans(),
    cells=st.sampled_from([200, 4096]),
)
def test_every_text_is_the_same_as_without_others(
    scopes: list[str], lengths: list[int], unified: bool, cells: int
) -> None:
    config = ModelConfig(
        backend=BackendKind.FAKE,
        kv_cells=cells if unified else 4096,
        n_ctx=128,
        kv_unified=KvUnified.TRUE if unified else KvUnified.FALSE,
    )
    backend = FakeBackend.load(config, 6, lambda _: None)
    run = EngineRun(backend, max_running=SLOTS)
    prompts = [
        tuple(tokenize(f"{number} " + "x" * lengths[number], add_special=True))
        for number in range(len(scopes))
    ]
    run.run(
        *(
            spec(number, prompts[number], max_tokens=12, scope=scope)
            for number, scope in enumerate(scopes)
        )
    )
    for number in range(len(scopes)):
        assert run.tokens(number) == expected_tokens(prompts[number], 12)
