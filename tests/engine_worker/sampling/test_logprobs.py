"""The log probabilities of a row are those of a direct softmax in double precision."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine_worker.sampling.batch import Pick
from engine_worker.sampling.logprobs import after_sampling, of_model
from engine_worker.sampling.sampler import Sampler
from gpufc.sampling import SamplingParams
from tests.engine_worker.sampling.kinds import RARE

N_VOCAB = 997
TOLERANCE = 1e-5


def row_of(seed: int, spread: float = 10.0) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).normal(0.0, spread, N_VOCAB)
    return drawn.astype(np.float32)


def log_softmax(row: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = row.astype(np.float64) - row.max()
    return exact - math.log(np.exp(exact).sum())


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100.0), st.integers(0, 300))
def test_they_are_the_softmax_of_the_raw_logits(seed: int, spread: float, n_top: int) -> None:
    row = row_of(seed, spread)
    expected = log_softmax(row)
    token = seed % N_VOCAB
    found = of_model(row, token, n_top)
    best = np.argsort(-row, kind="stable")[:n_top]
    assert found.ids == best.tolist()
    assert found.of_token == pytest.approx(expected[token], abs=TOLERANCE)
    assert found.logprobs == pytest.approx(expected[best], abs=TOLERANCE)


def test_equal_tokens_come_by_rising_id() -> None:
    row = np.zeros(N_VOCAB, np.float32)
    row[[7, 500, 900]] = 2.0
    assert of_model(row, 7, 5).ids == [7, 500, 900, 0, 1]


def test_a_token_that_the_model_rules_out_has_no_probability() -> None:
    row = row_of(1)
    row[5] = -np.inf
    assert of_model(row, 5, 1).of_token == -math.inf


def pick_of(params: SamplingParams) -> Pick:
    return Pick(Sampler(params, N_VOCAB), (1, 2, 3), 3, 0, 0)


def test_after_sampling_they_are_of_the_tokens_that_can_be_drawn() -> None:
    row = row_of(3)
    pick = pick_of(SamplingParams(seed=1, temperature=2.0, top_k=3, top_p=1.0, min_p=0.0))
    best = np.argsort(-row)[:3]
    expected = log_softmax((row[best] / np.float32(2.0)).astype(np.float32))
    found = after_sampling(row, pick, int(best[1]), 10)
    assert found.ids == best.tolist()
    assert found.logprobs == pytest.approx(expected, abs=TOLERANCE)
    assert found.of_token == pytest.approx(expected[1], abs=TOLERANCE)
    assert after_sampling(row, pick, int(np.argmin(row)), 1).of_token == -math.inf


def test_after_greedy_sampling_the_chosen_token_is_certain() -> None:
    row = row_of(4)
    found = after_sampling(
        row, pick_of(SamplingParams(seed=1, temperature=0.0)), int(row.argmax()), 5
    )
    assert (found.of_token, found.ids, found.logprobs) == (0.0, [int(row.argmax())], [0.0])


@pytest.mark.parametrize("kind", RARE)
def test_after_sampling_they_are_of_the_state_and_the_random_numbers_of_the_draw(kind: str) -> None:
    sampler, history = Sampler(SamplingParams(seed=1, **RARE[kind]), N_VOCAB), [5, 6] * 10
    for position in range(12):
        row = row_of(position, spread=1.5)
        place = {"choice": 1, "position": position}
        ids, chances = sampler.distribution(row, history, **place)
        token = sampler.choose(row, history, **place)
        found = after_sampling(row, Pick(sampler, history, len(history), **place), token, 5)
        expected = float(np.log(chances[ids == token][0]))
        assert found.of_token == pytest.approx(expected, abs=TOLERANCE)
        assert set(found.ids) <= set(ids.tolist())
