"""A hybrid model: llama.cpp can build its graph with equally many tokens of each sequence only."""

import pytest

from engine_worker.backend.llama.backend import LlamaBackend
from tests.models.reference import Reference
from tests.models.runs import N_CACHED, N_RUNNING, ModelRun, require_equal, some_tokens

N_TOKENS = 12


@pytest.fixture(scope="module")
def name() -> str:
    return "kimi-linear"


def test_it_is_loaded_and_answers_as_llama_cpp_alone(
    backend: LlamaBackend, reference: Reference
) -> None:
    """In streams the process would end here if a pass could not be divided by the sequences."""
    assert backend.facts.n_sequences == N_RUNNING + N_CACHED
    assert 128 % backend.facts.n_sequences
    assert backend.facts.batch_tokens <= 128
    pairs = [reference.surest(some_tokens(5 + 20 * at, 10 + at), N_TOKENS) for at in range(8)]
    answers = ModelRun(backend).answers([prompt for prompt, _ in pairs], N_TOKENS)
    for tokens, (_, alone) in zip(answers, pairs, strict=True):
        require_equal(tokens, alone, least_clear=1)


def test_its_repeated_prompt_is_computed_once(backend: LlamaBackend, reference: Reference) -> None:
    run = ModelRun(backend)
    prompt, alone = reference.surest(some_tokens(200, 1), N_TOKENS)
    for n_least in (0, 0.9 * len(prompt)):
        require_equal(run.answer(prompt, N_TOKENS), alone)
        assert run.n_cached >= n_least
