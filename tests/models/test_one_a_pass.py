"""PLaMo 2: llama.cpp computes several sequences in one pass wrongly, or ends the process."""

import pytest

from engine_worker.backend.llama.backend import LlamaBackend
from engine_worker.backend.port import Batch
from tests.models.reference import Reference
from tests.models.runs import N_CACHED, N_RUNNING, ModelRun, require_equal, some_tokens

N_TOKENS = 12


@pytest.fixture(scope="module")
def name() -> str:
    return "plamo2"


def test_many_prompts_at_once_are_answered_as_by_llama_cpp_alone(
    backend: LlamaBackend, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slots up to the last one are used: a pass with two of these would end the process."""
    assert backend.facts.n_sequences == N_RUNNING + N_CACHED
    begin, seen = backend.begin, list[set[int]]()

    def noted(batch: Batch) -> None:
        seen.append(set(batch.sequences))
        begin(batch)

    monkeypatch.setattr(backend, "begin", noted)
    pairs = [reference.surest(some_tokens(5 + 20 * at, 10 + at), N_TOKENS) for at in range(12)]
    answers = ModelRun(backend).answers([prompt for prompt, _ in pairs], N_TOKENS)
    for tokens, (_, alone) in zip(answers, pairs, strict=True):
        require_equal(tokens, alone, least_clear=1)
    assert max(map(len, seen)) == 1
    assert max(max(slots) for slots in seen) >= N_RUNNING


def test_a_common_beginning_is_computed_once(backend: LlamaBackend, reference: Reference) -> None:
    run = ModelRun(backend)
    prompt, alone = reference.surest(some_tokens(200, 1), N_TOKENS)
    for n_least in (0, 0.9 * len(prompt)):
        require_equal(run.answer(prompt, N_TOKENS), alone)
        assert run.n_cached >= n_least


def test_requests_with_one_beginning_wait_for_it_and_are_all_answered(
    backend: LlamaBackend, reference: Reference
) -> None:
    stem = some_tokens(150, 2)
    pairs = [reference.surest([*stem, *some_tokens(9, seed)], N_TOKENS) for seed in range(4)]
    answers = ModelRun(backend).answers([prompt for prompt, _ in pairs], N_TOKENS)
    for tokens, (_, alone) in zip(answers, pairs, strict=True):
        require_equal(tokens, alone, least_clear=1)
