"""In one cache llama.cpp gives cells that a sliding window has passed to other sequences."""

import random

import pytest

from engine_worker.backend.llama.backend import LlamaBackend
from tests.models.families import WINDOW
from tests.models.reference import Reference
from tests.models.runs import ModelRun, require_equal, some_tokens

N_TOKENS = 12


@pytest.fixture(scope="module", params=["gemma2", "gemma3", "gpt-oss"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


CONVERSATION = some_tokens(400, 2)


def fill_a_hole(run: ModelRun) -> None:
    """A short prompt leaves a hole. A longer one does not fit into it and, in one cache, takes
    cells of the idle conversation as well."""
    run.answer(some_tokens(90, 1), N_TOKENS)
    answer = run.answer(CONVERSATION, N_TOKENS)
    run.answer(some_tokens(12, 3), N_TOKENS)
    run.answer([*CONVERSATION, *answer, 40], N_TOKENS)
    run.answer(some_tokens(450, 4), N_TOKENS)


def test_the_beginning_of_a_conversation_is_right_after_other_prompts_took_its_cells(
    backend: LlamaBackend, reference: Reference
) -> None:
    run = ModelRun(backend, max_idle=2)
    fill_a_hole(run)
    beginning, alone = reference.surest(CONVERSATION[:200], N_TOKENS)
    require_equal(run.answer(beginning, N_TOKENS), alone)


def test_a_slot_that_has_lost_cells_serves_at_its_end_only(backend: LlamaBackend) -> None:
    run = ModelRun(backend, max_idle=2)
    fill_a_hole(run)
    holdings = run.engine.engine.scheduler.slots.holdings()
    lost = [held for held in holdings if not backend.keeps_prefix(held.slot, WINDOW + 1)]
    assert bool(lost) == backend.facts.unified
    assert all(backend.keeps_prefix(held.slot, len(held.tokens)) for held in holdings)


def test_random_trees_of_prefixes_are_right_in_crowded_caches(
    backend: LlamaBackend, reference: Reference
) -> None:
    run = ModelRun(backend, max_idle=3)
    numbers = random.Random(7)
    stems = [some_tokens(300, 50)]
    n_cached = 0
    for at in range(20):
        if numbers.random() < 0.6:
            stem = numbers.choice(stems[-4:])
            kept = stem[: numbers.randrange(len(stem) // 5, len(stem))]
            stem = [*kept, *some_tokens(numbers.randrange(5, 60), 300 + at)][:600]
        else:
            stem = some_tokens(numbers.randrange(60, 420), 400 + at)
        prompt, alone = reference.surest(stem, 4)
        stems.append(stem)
        require_equal(run.answer(prompt, 4), alone, least_clear=1)
        n_cached += run.n_cached > 0
    assert n_cached
