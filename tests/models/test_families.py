"""Every architecture's greedy text equals that of llama.cpp alone, whatever the cache has seen.

Without flash attention. `test_usual_attention` has what a worker on a CPU has by default.
"""

import pytest

from engine_worker.backend.llama.backend import LlamaBackend
from gpufc.config import Replay
from tests.models.families import FAMILIES
from tests.models.reference import Reference
from tests.models.runs import ModelRun, require_equal, some_tokens

N_TOKENS = 12


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(backend: LlamaBackend) -> ModelRun:
    return ModelRun(backend)


@pytest.mark.parametrize("n_prompt", [3, 300])
def test_a_prompt_is_answered_as_by_llama_cpp_alone(
    run: ModelRun, reference: Reference, n_prompt: int
) -> None:
    prompt, alone = reference.surest(some_tokens(n_prompt, 1), N_TOKENS)
    require_equal(run.answer(prompt, N_TOKENS), alone)


def test_eight_prompts_at_once_are_answered_as_if_alone(
    run: ModelRun, reference: Reference
) -> None:
    pairs = [reference.surest(some_tokens(5 + 20 * at, 10 + at), N_TOKENS) for at in range(8)]
    answers = run.answers([prompt for prompt, _ in pairs], N_TOKENS)
    for tokens, (_, alone) in zip(answers, pairs, strict=True):
        require_equal(tokens, alone, least_clear=1)


def test_the_prefix_of_a_finished_sequence_is_as_good_as_a_new_one(
    run: ModelRun, reference: Reference
) -> None:
    stem = some_tokens(150, 2)
    first, alone = reference.surest(stem, N_TOKENS)
    require_equal(run.answer(first, N_TOKENS), alone)
    require_equal(run.answer(first, N_TOKENS), alone)
    branch, alone_on_branch = reference.surest([*stem[:120], *some_tokens(20, 3)], N_TOKENS)
    require_equal(run.answer(branch, N_TOKENS), alone_on_branch)
    turn, alone_in_turn = reference.surest([*first, *alone.tokens, 40], N_TOKENS)
    require_equal(run.answer(turn, N_TOKENS), alone_in_turn)


def test_the_prefix_of_a_running_sequence_is_as_good_as_a_new_one(
    run: ModelRun, reference: Reference
) -> None:
    stem = some_tokens(150, 4)
    first, alone = reference.surest(stem, 3 * N_TOKENS)
    second, alone_beside = reference.surest([*stem[:130], *some_tokens(9, 5)], N_TOKENS)
    requests = [run.request(first, 3 * N_TOKENS), run.request(second, N_TOKENS)]

    def begin_the_second() -> None:
        if len(run.engine.deltas(requests[0].request)) == 3:
            run.engine.engine.inbox.put(requests[1])

    require_equal(run.run(requests[0], begin_the_second), alone)
    require_equal(run.engine.tokens(requests[1].request), alone_beside)


def test_a_preempted_sequence_goes_on_with_the_same_text(
    run: ModelRun, reference: Reference
) -> None:
    prompt, alone = reference.surest(some_tokens(140, 6), N_TOKENS)
    request = run.request(prompt, N_TOKENS)
    scheduler = run.engine.engine.scheduler
    preempted: list[int] = []

    def preempt_twice() -> None:
        found = scheduler.find(request.request)
        if found is not None and found.n_generated in (2, 5) and len(preempted) < 2:
            preempted.append(found.n_generated)
            scheduler.preempt(found)

    require_equal(run.run(request, preempt_twice), alone)
    assert preempted[0] == 2


def test_an_exact_replay_repeats_every_token(run: ModelRun) -> None:
    prompt = some_tokens(140, 7)
    undisturbed = run.run(run.request(prompt, N_TOKENS, replay=Replay.EXACT), lambda: None)
    request = run.request(prompt, N_TOKENS, replay=Replay.EXACT)
    scheduler = run.engine.engine.scheduler
    preempted: list[int] = []

    def preempt_at_two() -> None:
        found = scheduler.find(request.request)
        if found is not None and found.n_generated == 2 and not preempted:
            preempted.append(2)
            scheduler.preempt(found)

    assert run.run(request, preempt_at_two) == undisturbed
    assert preempted


def test_a_conversation_goes_on_in_the_next_worker(
    backend: LlamaBackend, reference: Reference
) -> None:
    prompt, alone = reference.surest(some_tokens(150, 8), N_TOKENS)
    before = ModelRun(backend)
    require_equal(before.answer(prompt, N_TOKENS), alone)
    after = before.succeeded()
    turn, alone_in_turn = reference.surest([*prompt, *alone.tokens, 40], N_TOKENS)
    require_equal(after.answer(turn, N_TOKENS), alone_in_turn)
    assert after.n_cached >= len(prompt)
