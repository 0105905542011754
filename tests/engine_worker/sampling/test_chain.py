"""The chain draws the same whether or not a finder has sorted the candidates."""

import math
from typing import Any

import numpy as np
import pytest

from engine_worker.backend.candidates import certain_candidates
from engine_worker.sampling.batch import BatchSampler, prepare
from engine_worker.sampling.chain import Steps, Table, draw, survivors
from tests.engine_worker.sampling.batches import FINDERS, Recorder, params, pick, rows

N_ROWS, N_FOUND = 50, 64

TABLES: dict[str, Any] = {
    "all off": {},
    "top-k": {"top_k": 40},
    "top-p": {"top_p": 0.9},
    "all on": {"top_k": 40, "top_p": 0.95, "log_min_p": math.log(0.05), "temperature": 0.8},
    "typical-p": {"top_k": 40, "typical_p": 0.5, "top_p": 0.9},
}


@pytest.mark.parametrize("has_reaches", [False, True])
@pytest.mark.parametrize("steps", [*TABLES.values(), None], ids=[*TABLES, "each row another one"])
def test_sorted_scores_change_nothing(steps: dict[str, Any] | None, has_reaches: bool) -> None:
    scores = rows(N_ROWS, N_FOUND).round(1).astype(np.float64)  # with equal ones
    scores -= scores.max(axis=1, keepdims=True)
    counts = np.random.default_rng(1).integers(1, N_FOUND + 1, N_ROWS)
    scores[np.arange(N_FOUND) >= counts[:, None]] = -np.inf
    scores -= scores.max(axis=1, keepdims=True)
    kinds = [steps] if steps is not None else list(TABLES.values())
    table = Table(np.array([Steps(**kinds[row % len(kinds)]) for row in range(N_ROWS)]))
    reaches = np.full(N_ROWS, 4.0) if has_reaches else None
    ranked = np.sort(scores, axis=1)[:, ::-1]
    plain = survivors(scores, counts, table, reaches=reaches)
    given = survivors(scores, counts, table, reaches=reaches, ranked=ranked)
    assert [one.tobytes() for one in plain] == [one.tobytes() for one in given]
    uniforms = np.random.default_rng(2).random(N_ROWS)
    assert (
        draw(scores, counts, table, uniforms, reaches=reaches)
        == draw(scores, counts, table, uniforms, reaches=reaches, ranked=ranked)
    ).all()


@pytest.mark.parametrize("bias", [(), ((7, -50.0), (9, -1.0))])
@pytest.mark.parametrize("finder", ["host_top_k", "device_top_k"])
def test_a_finder_s_sorted_logits_are_those_of_its_candidates(
    finder: str, bias: tuple[tuple[int, float], ...]
) -> None:
    n_vocab = 500
    (made,) = FINDERS[finder](n_vocab, 1)
    found = []

    class Kept(Recorder):
        def find(self, *arguments: Any) -> Any:
            found.append(super().find(*arguments))
            return found[-1]

    batch = BatchSampler(n_vocab, 1, (Kept(made),))
    picks = [pick(params(seed=seed, logit_bias=bias), n_vocab, [], []) for seed in range(20)]
    batch.choose(rows(20, n_vocab), prepare(picks))
    batch.close()
    (one,) = [one for one in found if one is not None]
    assert one.ranked is not None
    assert (one.ranked == np.sort(one.logits, axis=1)).all()
    some = one.of(np.array([3, 5]))
    assert some.ranked is not None
    assert (some.ranked == np.sort(some.logits, axis=1)).all()


def test_without_a_bound_no_other_token_is_above_the_smallest_found_one() -> None:
    values = rows(10, N_FOUND)
    ids = np.tile(np.arange(N_FOUND), (10, 1))
    for k in (1, 40, N_FOUND - 1):
        wanted = np.full(10, k)
        given = certain_candidates(ids, values, values.min(axis=1), wanted)
        found = certain_candidates(ids, values, None, wanted)
        assert given is not None
        assert found is not None
        assert (given.rows == found.rows).all()
    tied = values.copy()
    tied[:, 1] = tied[:, 0] = tied.min(axis=1)
    assert certain_candidates(ids, tied, None, np.full(10, N_FOUND - 1)) is None
