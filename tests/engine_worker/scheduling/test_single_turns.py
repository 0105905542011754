"""Turns of single sequences: one a step, and every one in turn."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from engine_worker.backend.fake.backend import FakeBackend, expected_tokens
from engine_worker.backend.fake.vocabulary import tokenize
from engine_worker.backend.port import Batch
from engine_worker.scheduling.plan import Plan
from engine_worker.scheduling.single_turns import SingleTurns
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.scheduling.turns import LONGEST_S, AllAtOnce
from gpufc.config import BackendKind, KvUnified, ModelConfig
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.text.sequences import sequence, spec

NOTHING = Plan([], [], [])


def test_each_sequence_has_a_step_in_turn() -> None:
    turns = SingleTurns(AllAtOnce(), StepCosts())
    sequences = [sequence(spec(number)) for number in (4, 2, 7)]
    for each in sequences:
        turns.arrived(each)
    steps = []
    for _ in range(6):
        for _ in range(2):  # to settle again decides the same
            turns.settle(sequences)
        steps += [seq.request for seq in turns.of(sequences)]
        turns.passed(NOTHING, sequences)
    assert steps == [4, 2, 7, 4, 2, 7]


def test_a_sequence_that_has_ended_loses_its_turn() -> None:
    turns = SingleTurns(AllAtOnce(), StepCosts())
    one, other = sequence(spec(1)), sequence(spec(2))
    turns.arrived(one)
    turns.arrived(other)
    turns.settle([one, other])
    assert turns.of([one, other]) == [one]
    turns.settle([other])
    assert turns.of([other]) == [other]
    turns.settle([])
    assert turns.of([]) == []


def test_requests_of_one_step_each_starve_no_other() -> None:
    turns = SingleTurns(AllAtOnce(), StepCosts())
    stream = sequence(spec(1))
    turns.arrived(stream)
    steps = []
    others = [sequence(spec(number)) for number in range(2, 8)]
    turns.arrived(others[0])
    for one, later in pairwise(others):
        turns.arrived(later)
        known = [stream, one, later]
        turns.settle(known)
        (computed,) = turns.of(known)
        steps.append(computed.request)
        turns.passed(NOTHING, known)
        turns.ended(one)
    assert steps == [1, 3, 1, 5, 1]


class OneAPass(FakeBackend):
    """A model whose passes must have the tokens of one sequence."""

    def begin(self, batch: Batch) -> None:
        assert len(set(batch.sequences)) == 1
        super().begin(batch)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=10),
    same=st.booleans(),
    unified=st.booleans(),
    cells=st.sampled_from([160, 4096]),
    can_cut=st.booleans(),
)
def test_every_text_is_whole(
    lengths: list[int], same: bool, unified: bool, cells: int, can_cut: bool
) -> None:
    config = ModelConfig(
        backend=BackendKind.FAKE,
        kv_cells=cells if unified else 4096,
        n_ctx=128,
        kv_unified=KvUnified.TRUE if unified else KvUnified.FALSE,
    )
    backend = OneAPass.load(config, 6, lambda _: None)
    facts = {"one_a_pass": True, "can_cut": can_cut}
    backend.facts = type(backend.facts)(**{**_fields(backend), **facts})
    run = EngineRun(backend, max_running=3)
    texts = ["a" * n if same else f"{at} " + "b" * n for at, n in enumerate(lengths)]
    prompts = [tuple(tokenize(text, add_special=True)) for text in texts]
    run.run(*(spec(at, prompt, max_tokens=12) for at, prompt in enumerate(prompts, 1)))
    for at, prompt in enumerate(prompts, 1):
        assert run.tokens(at) == expected_tokens(prompt, 12)


def _fields(backend: FakeBackend) -> dict[str, object]:
    return {name: getattr(backend.facts, name) for name in backend.facts.__struct_fields__}


def test_a_prompt_beside_others_has_steps_of_a_bounded_time() -> None:
    costs = StepCosts()
    for n_tokens in (1, 512):
        costs.computed(n_tokens, n_tokens * LONGEST_S / 100)
    turns = SingleTurns(AllAtOnce(), costs)
    alone, other = sequence(spec(1, prompt=300)), sequence(spec(2))
    turns.settle([alone])
    assert turns.most_tokens(512) == 512
    turns.settle([alone, other])
    assert turns.most_tokens(512) == 100
