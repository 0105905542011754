"""Every architecture with the attention that a worker on a CPU has by default.

Its sums depend on the shape of a pass. So runs are compared whose passes have the same shapes, and
these agree to the last bit. Answers of llama.cpp alone are compared up to the first token without a
clear lead.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from gpufc.config import FlashAttention, KvUnified, Replay
from gpufc.protocol import Generate
from tests.models.families import FAMILIES, UNCUT
from tests.models.making import made
from tests.models.reference import BATCH_TOKENS, Reference
from tests.models.runs import N_CTX, ModelRun, loaded_as, require_equal, some_tokens
from tests.models.watched import WatchedBackend

N_TOKENS = 24
HYBRIDS = ("kimi-linear", "minimax-01")
WITHOUT_ATTENTION = ("mamba", "mamba2", "rwkv7")

Logits = dict[tuple[int, ...], np.ndarray]
"""Rows of logits by all tokens before them."""


@pytest.fixture(scope="module", params=[*FAMILIES, *HYBRIDS])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def reference(name: str) -> Iterator[Reference]:
    alone = Reference(made(name), N_CTX)
    yield alone
    alone.close()


@pytest.fixture(scope="module", params=[KvUnified.TRUE, KvUnified.FALSE])
def backend(name: str, request: pytest.FixtureRequest) -> Iterator[WatchedBackend]:
    with loaded_as(WatchedBackend, name, request.param) as found:
        yield found


def watched(backend: WatchedBackend, run: Callable[[], list[int]]) -> tuple[list[int], Logits]:
    """An answer and its rows of logits."""
    backend.forget()
    tokens = run()
    return tokens, {row.tokens: row.logits for row in backend.rows}


def require_same(found: tuple[list[int], Logits], wanted: tuple[list[int], Logits]) -> None:
    """Both answers have the same tokens and bits."""
    assert found[0] == wanted[0]
    assert found[1].keys() == wanted[1].keys()
    assert all(np.array_equal(found[1][tokens], wanted[1][tokens]) for tokens in wanted[1])


@pytest.mark.parametrize("n_prompt", [3, 300])
def test_a_prompt_is_answered_as_by_llama_cpp_alone(
    backend: WatchedBackend, reference: Reference, n_prompt: int
) -> None:
    prompt, alone = reference.surest(some_tokens(n_prompt, 1), N_TOKENS)
    require_equal(ModelRun(backend).answer(prompt, N_TOKENS), alone)


def test_it_is_another_attention_than_that_of_the_other_tests(
    name: str, backend: WatchedBackend
) -> None:
    prompt = some_tokens(BATCH_TOKENS, 2)
    _, usual = watched(backend, lambda: ModelRun(backend).answer(prompt, 1))
    layout = KvUnified.TRUE if backend.facts.unified else KvUnified.FALSE
    off = FlashAttention.OFF
    with loaded_as(WatchedBackend, name, layout, flash_attention=off) as other:
        _, plain = watched(other, lambda: ModelRun(other).answer(prompt, 1))
    is_same = np.array_equal(usual[tuple(prompt)], plain[tuple(prompt)])
    assert is_same == (name in WITHOUT_ATTENTION)


@pytest.mark.parametrize("name", [one for one in FAMILIES if one not in UNCUT], scope="module")
def test_a_prefix_from_the_cache_changes_no_bit(
    backend: WatchedBackend, reference: Reference
) -> None:
    """The prompts part where the first pass ends, so that passes have the same shapes. The passes
    behind it are too small to be computed in tiles, whose sums depend on the places of cells."""
    stem = some_tokens(BATCH_TOKENS, 2)
    first, branch = [*stem, 40, *some_tokens(19, 3)], [*stem, 41, *some_tokens(23, 4)]
    fresh = watched(backend, lambda: ModelRun(backend).answer(branch, N_TOKENS))
    assert fresh[0] == reference.answer(branch, N_TOKENS).tokens
    run = ModelRun(backend)
    run.answer(first, N_TOKENS)
    require_same(watched(backend, lambda: run.answer(branch, N_TOKENS)), fresh)
    assert run.n_cached == len(stem)


@pytest.mark.parametrize("name", [*UNCUT, *HYBRIDS], scope="module")
def test_a_checkpoint_changes_no_bit(backend: WatchedBackend) -> None:
    """The first chunk of the prompt ends at the checkpoint, too."""
    run, prompt = ModelRun(backend), some_tokens(200, 5)
    fresh = watched(backend, lambda: run.answer(prompt, N_TOKENS))
    assert run.n_cached == 0
    for _ in range(2):
        require_same(watched(backend, lambda: run.answer(prompt, N_TOKENS)), fresh)
        assert run.n_cached == len(prompt) - 1


def test_an_exact_replay_changes_no_bit(backend: WatchedBackend, reference: Reference) -> None:
    prompts = (some_tokens(140, seed) for seed in range(7, 27))
    prompt = next(one for one in prompts if len(reference.answer(one, N_TOKENS).tokens) == N_TOKENS)
    run = ModelRun(backend)
    scheduler = run.engine.engine.scheduler
    preempted: list[int] = []

    def exact() -> Generate:
        return run.request(prompt, N_TOKENS, replay=Replay.EXACT)

    def preempt() -> None:
        found = scheduler.find(replayed.request)
        if found is not None and found.n_generated in {2, 9} - {*preempted}:
            preempted.append(found.n_generated)
            scheduler.preempt(found)

    undisturbed = watched(backend, lambda: run.run(exact(), lambda: None))
    replayed = exact()
    require_same(watched(backend, lambda: run.run(replayed, preempt)), undisturbed)
    assert preempted == [2, 9]
