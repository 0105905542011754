"""Passes of one shape on a device, prompts ahead of them, and requests that come and go."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_worker.backend.fake.backend import expected_tokens
from engine_worker.engine.batching import batch_of
from engine_worker.scheduling.plan import Chunk
from gpufc.config import Replay
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Cancel
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.engine.recorded_device import N_STREAMS, device, prompt
from tests.engine_worker.scheduling.device_planner import fixed_pass_planner, running
from tests.engine_worker.scheduling.plans import step
from tests.engine_worker.text.sequences import sequence, spec

# prompts


def test_a_prompt_s_last_token_is_computed_beside_the_others() -> None:
    planner = running()
    planner.add(sequence(spec(20, 50)))
    plan = planner.plan()
    batch = batch_of(plan)
    assert batch.in_one_pass
    assert sum(batch.outputs) == 11
    last = [at for at, position in enumerate(batch.positions) if position == 49]
    assert [batch.outputs[at] for at in last] == [True]


def test_a_chunk_that_is_not_the_last_has_a_padding_row() -> None:
    planner = running(batch_tokens=40)
    planner.add(sequence(spec(20, 100)))
    plan = step(planner)
    (chunk,) = [work for work in plan.work if isinstance(work, Chunk)]
    assert (chunk.is_last, chunk.is_padded, chunk.n_rows) == (False, True, 1)
    assert sum(batch_of(planner.plan()).outputs) == 11
    while planner.running[-1].n_pending > 1:
        step(planner)
    assert planner.running[-1].n_generated == 1


def test_a_tail_that_is_fed_token_by_token_has_a_row_as_well() -> None:
    planner = running()
    for number, length in ((20, 60), (21, 64)):
        planner.add(sequence(spec(number, length)))
    rows = [sum(batch_of(plan).outputs) for plan in (step(planner) for _ in range(4))]
    assert rows == [12] * 4


@pytest.mark.parametrize("hindrance", ["exact", "draft", "alone"])
def test_passes_are_as_before_where_that_must_not_or_cannot_be(hindrance: str) -> None:
    planner = running() if hindrance != "alone" else fixed_pass_planner()
    if hindrance == "draft":
        planner.running[0].draft = [97, 98]
    replay = Replay.EXACT if hindrance == "exact" else Replay.FAST
    planner.add(sequence(spec(20, 50, replay=replay)))
    plan = planner.plan()
    assert any(work.count > 1 for work in plan.work if isinstance(work, Chunk))
    assert not batch_of(plan).in_one_pass


# in the engine


@pytest.mark.parametrize("n_gpu_layers", [0, 1])
def test_only_a_device_with_all_layers_has_passes_of_one_shape(n_gpu_layers: int) -> None:
    fake = device()
    fake.facts = msgspec.structs.replace(fake.facts, n_layers=1, n_gpu_layers=n_gpu_layers)
    run = EngineRun(fake, max_running=N_STREAMS, batch_tokens=128)
    run.run(*(spec(n, prompt("words " * n), max_tokens=10 * n) for n in range(1, 14)))
    assert any(batch.in_one_pass for batch in fake.batches) is bool(n_gpu_layers)


@given(st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_every_request_has_its_own_text_however_others_come_and_go(dice: random.Random) -> None:
    run = EngineRun(device(), max_running=N_STREAMS, batch_tokens=128)
    run.fix_costs(0.006, 2e-5)
    shared = prompt("a prefix that some of them share " * 3)
    requests = {}
    for n in range(1, 50):
        words = prompt(f"{n} " * dice.randint(1, 20))
        requests[n] = spec(
            n,
            (*shared, *words) if dice.random() < 0.5 else words,
            max_tokens=dice.randint(1, 40),
            cache_prompt=dice.random() < 0.8,
            replay=dice.choice([Replay.FAST, Replay.FAST, Replay.FAST, Replay.EXACT]),
        )
    left, cancelled = list(requests.values()), set()

    def come_and_go() -> None:
        while left and dice.random() < 0.6:
            run.engine.inbox.put(left.pop())
        if run.engine.scheduler.running and dice.random() < 0.05:
            request = dice.choice(run.engine.scheduler.running).request
            cancelled.add(request)
            run.engine.inbox.put(Cancel(Epoch(1), RequestNo(request)))

    while left:
        come_and_go()
        run.run(between=come_and_go)
    for n, wanted in requests.items():
        if n not in cancelled:
            expected = expected_tokens(wanted.prompt_tokens, wanted.max_tokens or 0)
            assert run.tokens(n) == expected
