"""Passes of a model that are computed beside the thread that asks for them."""

import threading
from pathlib import Path

import llama_cpp.llama_cpp as llama_cpp  # before numpy: see engine_worker/__main__.py
import numpy as np
import pytest

from engine_worker import host
from gpufc.config import KvUnified, Speculation
from gpufc.errors import DecodeFailed
from tests.engine_worker.backend.decoding import decode
from tests.engine_worker.backend.llama.loaded import feed, joined, load, tokens_of
from tests.models.making import made

pytestmark = pytest.mark.model


def test_a_pass_beside_that_lacks_cells_ends_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot lack any for sequences within the limit. What was computed is taken back."""
    monkeypatch.setattr(host, "usable_cores", lambda: 2)
    backend = load(made("llama"), kv_unified=KvUnified.FALSE, n_threads=1)
    try:
        assert backend.facts.computes_beside
        tokens = tokens_of(backend, "word " * 250)[:250]
        decode(backend, joined(feed(tokens[:4], sequence=0), feed(tokens[:100], sequence=1)))
        batch = joined(feed([5], sequence=0, start=4), feed(tokens[:200], sequence=1, start=100))
        batch.chunks = {1}
        backend.begin(batch)
        with pytest.raises(DecodeFailed, match="cannot lack cells"):
            backend.logits()
        assert np.isfinite(decode(backend, feed([5], sequence=0, start=4))).all()
    finally:
        backend.close()


@pytest.mark.parametrize(
    ("n_threads", "layout", "speculation", "is_beside"),
    [
        (1, KvUnified.FALSE, Speculation.NGRAM, True),
        (2, KvUnified.FALSE, Speculation.NGRAM, False),  # no core is free
        (1, KvUnified.TRUE, Speculation.NGRAM, False),  # cells may run out
        (1, KvUnified.FALSE, Speculation.DRAFT, False),
    ],
)
def test_a_cpu_with_a_free_core_computes_beside(
    monkeypatch: pytest.MonkeyPatch,
    n_threads: int,
    layout: KvUnified,
    speculation: Speculation,
    is_beside: bool,
) -> None:
    monkeypatch.setattr(host, "usable_cores", lambda: 2)
    config = {"kv_unified": layout, "n_threads": n_threads, "speculation": speculation}
    backend = load(made("llama"), **config)
    backend.close()
    assert backend.facts.computes_beside is is_beside


def test_the_thread_that_loads_the_weights_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its OpenMP threads, where weights are converted, have ended with it."""
    found: list[threading.Thread] = []
    load_weights = llama_cpp.llama_model_load_from_splits

    def noted(*arguments: object) -> object:
        found.append(threading.current_thread())
        return load_weights(*arguments)

    monkeypatch.setattr(llama_cpp, "llama_model_load_from_splits", noted)
    load(made("llama")).close()
    (loading,) = found
    assert loading is not threading.current_thread()
    assert not loading.is_alive()


def test_what_is_computed_beside_is_the_same_and_edits_wait_for_it(
    monkeypatch: pytest.MonkeyPatch, model_path: Path
) -> None:
    rows = []
    for n_cores in (1, 2):
        monkeypatch.setattr(host, "usable_cores", lambda n=n_cores: n)
        backend = load(model_path, kv_unified=KvUnified.FALSE, n_threads=1)
        tokens = tokens_of(backend, "The quick brown fox jumps over the lazy dog")
        backend.begin(feed(tokens, sequence=0))
        backend.copy_prefix(0, 1, len(tokens))
        backend.remove(0)
        backend.logits()
        rows.append(decode(backend, feed([5], sequence=1, start=len(tokens))).copy())
        backend.close()
    assert np.isfinite(rows[0]).all()
    assert (rows[0] == rows[1]).all()
