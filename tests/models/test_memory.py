"""What placement reckons equals what llama.cpp takes."""

import pytest

from engine_worker.model_file.gguf_header import read_header
from engine_worker.placement.footprint import footprint
from gpufc.config import KvUnified
from tests.models.families import FAMILIES, WINDOW
from tests.models.making import made
from tests.models.runs import ModelRun, loaded, some_tokens

N_TOKENS = WINDOW - 8
HEADER_BYTES = 4096
"""At most this much of an exported state describes it."""
POSITION_BYTES = 16
"""At most this much for each token is no key and no value."""


@pytest.mark.parametrize("name", [*FAMILIES, "minimax-01"])
def test_a_sequence_takes_its_state_and_its_cells(name: str) -> None:
    reckoned = footprint(read_header(made(name)))
    expected = sum(reckoned.state_bytes) + N_TOKENS * sum(reckoned.cell_bytes)
    with loaded(name, KvUnified.FALSE) as backend:
        run = ModelRun(backend)
        run.answer(some_tokens(N_TOKENS, 1), 1)
        (held,) = run.engine.engine.scheduler.slots.holdings()
        assert len(held.tokens) == N_TOKENS
        taken = backend.state_bytes(held.slot)
        assert backend.facts.kv_cells == 0 or reckoned.has_cells
    assert 0 <= taken - expected <= HEADER_BYTES + N_TOKENS * POSITION_BYTES
