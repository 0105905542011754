"""What placement reckons equals what llama.cpp takes."""

import logging
import re

import pytest

from engine_worker.backend.llama.backend import LlamaBackend
from engine_worker.model_file.gguf_header import read_header
from engine_worker.placement.cell_sizes import compressed_caches
from engine_worker.placement.cells import GRANULE
from engine_worker.placement.footprint import footprint
from gpufc.config import KvType, KvUnified
from tests.models.families import FAMILIES, WINDOW
from tests.models.making import made
from tests.models.rare import RARE
from tests.models.runs import N_CTX, ModelRun, loaded, loaded_as, some_tokens

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


ROUNDED_BYTES = 0.01 * (1 << 20)
"""llama.cpp tells the size of a buffer in hundredths of a MiB."""
BUFFER = re.compile(r"(?:KV|RS|state) buffer size = +([\d.]+) MiB")


@pytest.mark.parametrize("layout", [KvUnified.TRUE, KvUnified.FALSE])
@pytest.mark.parametrize("types", [(KvType.F16, KvType.F16), (KvType.F32, KvType.F32)])
@pytest.mark.parametrize("name", [*FAMILIES, *RARE])
def test_the_caches_of_all_sequences_take_what_is_reckoned(
    name: str, types: tuple[KvType, KvType], layout: KvUnified, caplog: pytest.LogCaptureFixture
) -> None:
    header = read_header(made(name))
    # with keys and values of 32 bits a CPU has no flash attention
    reckoned = footprint(header, *types, flash=types[0] is KvType.F16)
    kinds = dict(zip(("cache_type_k", "cache_type_v"), types, strict=True))
    with (
        caplog.at_level(logging.DEBUG, "engine_worker.llama_cpp"),
        loaded_as(LlamaBackend, name, layout, 4 * N_CTX, **kinds) as backend,
    ):
        facts = backend.facts
    sizes = [float(size) * (1 << 20) for size in BUFFER.findall(caplog.text)]
    assert sizes
    cells = facts.kv_cells * sum(reckoned.cell_bytes)
    expected = cells + facts.n_sequences * sum(reckoned.state_bytes)
    rounded = ROUNDED_BYTES * len(sizes)
    # how far compressed caches are rounded up is reckoned as one granule
    compressed = [compressed_caches(header, at, types[0]) for at in range(reckoned.n_layers)]
    spare = GRANULE * facts.n_sequences * sum(each for caches in compressed for _, each in caches)
    assert -rounded <= expected - sum(sizes) <= rounded + spare
