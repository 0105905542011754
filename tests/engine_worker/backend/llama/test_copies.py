"""Copies between KV streams: of a whole one, and of few cells by way of their state."""

import llama_cpp.llama_cpp as llama_cpp  # before numpy: see engine_worker/__main__.py
import numpy as np
import pytest

from gpufc.config import KvUnified
from tests.engine_worker.backend.decoding import decode
from tests.engine_worker.backend.llama.loaded import feed, load, tokens_of
from tests.models.making import made

pytestmark = pytest.mark.model


@pytest.mark.parametrize("is_cut", [False, True])
def test_copies_of_both_kinds_before_one_pass_keep_their_order(is_cut: bool) -> None:
    """A copy of a whole stream waits for the next pass, and one of few cells need not."""
    backend = load(made("llama"), kv_unified=KvUnified.FALSE)
    try:
        words = tokens_of(backend, "word " * 250)[:200]
        decode(backend, feed(words))
        others = tokens_of(backend, "The quick brown fox jumps over the lazy dog. " * 9)[:28]
        decode(backend, feed(others, sequence=1))
        n_kept = 20 if is_cut else 196
        backend.copy_prefix(0, 2, n_kept)  # waits
        if is_cut:
            backend.remove(1)
            backend.copy_prefix(2, 1, n_kept)  # reads what the first one will write
        else:
            backend.remove(0)
            backend.copy_prefix(1, 0, 24)  # writes what the first one will read
        found = decode(backend, feed([5], sequence=1 if is_cut else 2, start=n_kept)).copy()
        for slot in range(backend.facts.n_sequences):
            backend.remove(slot)
        decode(backend, feed(words[:n_kept], sequence=3))
        expected = decode(backend, feed([5], sequence=3, start=n_kept))
        np.testing.assert_allclose(found, expected, atol=0.05 * expected.std())
    finally:
        backend.close()


@pytest.mark.parametrize(("n_tokens", "is_by_stream"), [(20, False), (200, True)])
def test_of_a_stream_with_few_cells_in_use_only_these_are_copied(
    monkeypatch: pytest.MonkeyPatch, n_tokens: int, is_by_stream: bool
) -> None:
    copies: list[tuple[int, int]] = []
    copy_stream = llama_cpp.llama_memory_seq_cp

    def noted(memory: object, source: int, target: int, *limits: int) -> None:
        copies.append((source, target))
        copy_stream(memory, source, target, *limits)

    monkeypatch.setattr(llama_cpp, "llama_memory_seq_cp", noted)
    backend = load(made("llama"), kv_unified=KvUnified.FALSE)
    try:
        tokens = tokens_of(backend, "word " * 250)[:n_tokens]
        decode(backend, feed(tokens))
        backend.copy_prefix(0, 2, n_tokens - 4)
        rows = []
        for slot in (0, 2):
            backend.remove(slot, n_tokens - 4)
            rows.append(decode(backend, feed([5], sequence=slot, start=n_tokens - 4)).copy())
    finally:
        backend.close()
    assert copies == ([(0, 2)] if is_by_stream else [])
    assert (rows[0] == rows[1]).all()


def test_no_state_is_handed_over_while_a_copy_waits_for_the_next_pass() -> None:
    backend = load(made("llama"), kv_unified=KvUnified.FALSE)
    try:
        words = tokens_of(backend, "word " * 250)[:200]
        decode(backend, feed(words))
        memory = memoryview(bytearray(backend.state_bytes(0)))
        assert backend.export_state(0, memory) == len(memory) > 0
        backend.copy_prefix(0, 2, len(words))
        assert backend.state_bytes(2) == 0
        assert not backend.import_state(1, memory)
        decode(backend, feed([5], sequence=2, start=len(words)))
        assert backend.state_bytes(2) > 0
        assert backend.import_state(1, memory)
    finally:
        backend.close()
