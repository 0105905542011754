"""A LongRoPE model's factors depend on the cells of one sequence, and the fingerprint tells."""

from gpufc.config import KvUnified
from tests.models.families import ORIGINAL_CONTEXT
from tests.models.making import made
from tests.models.reference import Reference
from tests.models.runs import ModelRun, loaded, require_equal, some_tokens

N_TOKENS = 12
LONG_CONTEXT = 3 * ORIGINAL_CONTEXT


def test_one_cache_keeps_the_short_factors_of_a_short_context() -> None:
    """However much memory is free."""
    prints = set()
    alone = Reference(made("phi3-longrope"), ORIGINAL_CONTEXT)
    prompt, answer = alone.surest(some_tokens(60, 2), N_TOKENS)
    alone.close()
    for unified in (KvUnified.TRUE, KvUnified.FALSE):
        with loaded("phi3-longrope", unified, n_ctx=ORIGINAL_CONTEXT) as backend:
            require_equal(ModelRun(backend).answer(prompt, N_TOKENS), answer)
            prints.add(backend.facts.fingerprint)
    assert len(prints) == 1


def test_a_long_context_has_other_factors_and_another_fingerprint() -> None:
    prints = set()
    for n_ctx in (ORIGINAL_CONTEXT, LONG_CONTEXT):
        with loaded("phi3-longrope", KvUnified.FALSE, n_ctx=n_ctx) as backend:
            prints.add(backend.facts.fingerprint)
    with loaded("phi3-longrope", KvUnified.TRUE, n_ctx=LONG_CONTEXT) as backend:
        prints.add(backend.facts.fingerprint)
    assert len(prints) == 2


def test_other_models_have_one_fingerprint_for_every_context() -> None:
    prints = set()
    for n_ctx in (ORIGINAL_CONTEXT, LONG_CONTEXT):
        with loaded("phi3", KvUnified.FALSE, n_ctx=n_ctx) as backend:
            prints.add(backend.facts.fingerprint)
    assert len(prints) == 1
