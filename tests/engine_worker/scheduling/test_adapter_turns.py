"""Turns of adapters: one set a step, and every set in turn."""

from hypothesis import given, settings
from hypothesis import strategies as st

from engine_worker.backend.fake.backend import FakeBackend, expected_tokens
from engine_worker.backend.fake.vocabulary import tokenize
from engine_worker.backend.port import Batch
from engine_worker.scheduling.adapter_turns import AdapterTurns
from engine_worker.scheduling.plan import Plan
from engine_worker.scheduling.turns import AllAtOnce
from gpufc.adapters import Adapters, AdapterUse
from gpufc.config import BackendKind, KvUnified, ModelConfig
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.text.sequences import sequence, spec

A: Adapters = (AdapterUse("a"),)
B: Adapters = (AdapterUse("b"),)
HALF: Adapters = (AdapterUse("a", 0.5),)
NOTHING = Plan([], [], [])


def test_without_adapters_every_sequence_has_every_turn() -> None:
    turns = AdapterTurns(AllAtOnce())
    sequences = [sequence(spec(number)) for number in (1, 2)]
    for each in sequences:
        turns.arrived(each)
    turns.settle(sequences)
    assert turns.of(sequences) == sequences


def test_each_set_of_adapters_has_a_step_in_turn() -> None:
    turns = AdapterTurns(AllAtOnce())
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
    turns = AdapterTurns(AllAtOnce())
    one, other = sequence(spec(1, adapters=A)), sequence(spec(2, adapters=B))
    for each in (one, other):
        turns.arrived(each)
    turns.settle([one, other])
    (first,) = turns.of([one, other])
    left = [seq for seq in (one, other) if seq is not first]
    turns.settle(left)
    assert turns.of(left) == left


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
