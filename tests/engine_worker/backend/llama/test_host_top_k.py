"""ggml's top-k through ctypes, on llama.cpp's own library."""

import ctypes

import llama_cpp.llama_cpp as lc
import numpy as np
import pytest
from numpy.typing import NDArray

from engine_worker.backend.candidates import ChangedLogits
from engine_worker.backend.llama.bindings import library_of
from engine_worker.backend.llama.finders import host_finders
from engine_worker.backend.llama.host_top_k import MIN_ROWS, MIN_THREADS, HostTopK
from tests.engine_worker.sampling.aligned_logits import aligned

N_VOCAB = 1000


NO_CHANGE = ChangedLogits(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.float32))


def top_k(n_threads: int = 2, min_rows: int = 1) -> HostTopK:
    found = HostTopK.of(library_of(lc), N_VOCAB, n_threads, min_rows)
    assert found is not None
    return found


def rows(n_rows: int, seed: int = 0) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    return aligned(generator.standard_normal((n_rows, N_VOCAB)).astype(np.float32))


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_the_first_of_each_row_and_its_sum(n_threads: int) -> None:
    finder = top_k(n_threads)
    for n_rows, k in [(1, 1), (3, 41), (7, 41), (7, 257), (2, N_VOCAB)]:
        logits = rows(n_rows, seed=k)
        top = finder.top(logits, k)
        assert top is not None
        assert top.ids.shape == (n_rows, k)
        best = (-logits).argsort(axis=1)[:, :k]
        assert (np.sort(top.ids, axis=1) == np.sort(best, axis=1)).all()
        assert np.allclose(top.sums, logits.sum(axis=1), atol=1e-3)
    finder.close()


def test_the_same_memory_with_other_logits() -> None:
    finder, logits = top_k(), rows(2)
    for token in (5, 900):
        logits[:, token] = 99.0 + token
        top = finder.top(logits, 1)
        assert top is not None
        assert top.ids.tolist() == [[token], [token]]
    finder.close()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("token", [0, 500, N_VOCAB - 1])
def test_a_logit_that_is_not_finite_is_in_the_sum(bad: float, token: int) -> None:
    finder, logits = top_k(), rows(3)
    logits[1, token] = bad
    top = finder.top(logits, 41)
    assert top is not None
    assert np.isfinite(top.sums).tolist() == [True, False, True]
    finder.close()


def test_memory_that_ggml_does_not_take() -> None:
    finder, logits = top_k(), rows(3)
    odd = aligned(np.zeros((1, 2 * N_VOCAB + 1), np.float32))[0, 1 : 1 + 2 * N_VOCAB]
    assert finder.top(odd.reshape(2, N_VOCAB), 3) is None
    assert finder.top(logits[::-1], 3) is None
    assert finder.top(logits, N_VOCAB + 1) is None
    finder.close()


def test_a_library_without_ggml() -> None:
    assert HostTopK.of(ctypes.CDLL(None), N_VOCAB, 1) is None
    assert host_finders(ctypes.CDLL(None), N_VOCAB, MIN_THREADS) == ()


# as a finder


def test_it_is_offered_with_enough_threads_only() -> None:
    assert host_finders(library_of(lc), N_VOCAB, MIN_THREADS - 1) == ()
    (finder,) = host_finders(library_of(lc), N_VOCAB, MIN_THREADS)
    finder.close()


def test_it_declines_few_rows_rows_not_asked_for_and_greedy_ones() -> None:
    finder, logits = top_k(min_rows=MIN_ROWS), rows(MIN_ROWS)
    asked = np.full(MIN_ROWS, 40)
    assert finder.find(logits[1:], asked[1:], NO_CHANGE, None) is None
    assert finder.find(logits, np.ones(MIN_ROWS, np.intp), NO_CHANGE, None) is None
    assert finder.find(logits, np.where(np.arange(MIN_ROWS), asked, 0), NO_CHANGE, None) is None
    found = finder.find(logits, asked, NO_CHANGE, None)
    assert found is not None
    assert found.rows.tolist() == list(range(MIN_ROWS))
    finder.close()


def test_from_the_first_masked_logits_on_it_declines() -> None:
    finder, logits = top_k(), rows(3)
    asked, before = np.full(3, 40), aligned(logits)
    logits[1, 5] = np.nan
    assert finder.find(logits, asked, NO_CHANGE, None) is None
    assert finder.find(before, asked, NO_CHANGE, None) is not None
    logits[1, 5] = -np.inf
    assert finder.find(logits, asked, NO_CHANGE, None) is None
    assert finder.find(before, asked, NO_CHANGE, None) is None
    finder.close()
