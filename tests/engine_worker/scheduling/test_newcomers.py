"""A crowd waits while the prompt of another scope is computed, and not for long."""

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


def of(scope: str, number: int, n_prompt: int = 4, max_tokens: int | None = None) -> Sequence:
    return sequence(spec(number, n_prompt, scope=scope, max_tokens=max_tokens))


def numbers(work: list[tuple[int, int, bool]]) -> set[int]:
    return {number for number, _, _ in work}


def test_a_crowd_waits_for_the_prompt_of_another_scope() -> None:
    made = crowded()
    add(made, of("b", 9, 20))
    assert step(made) == [(9, 16, False)]
    assert step(made) == [(9, 4, True)]
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
