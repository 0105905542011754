"""The order in which finders are asked, and the rows that they leave to each other."""

from typing import Any

import numpy as np
import pytest

from engine_worker.backend.candidates import Candidates, ChangedLogits
from engine_worker.sampling.batch import MAX_LEFT_OUT, BatchSampler
from engine_worker.sampling.columns import Columns
from engine_worker.sampling.threads import RowThreads
from tests.engine_worker.sampling.batches import Recorder, Rows, check, params, rows


class Largest:
    """A finder that answers some rows, by sorting each of them."""

    def __init__(self, answered: set[int]) -> None:
        self._answered = answered

    def find(self, logits: Rows, k: Any, changed: Any, masks: Any) -> Candidates | None:
        assert not len(changed.places)
        assert masks is None
        wanted = [row for row in k.nonzero()[0].tolist() if row in self._answered]
        ids = np.tile(np.arange(logits.shape[1]), (len(wanted), 1))
        counts = np.full(len(wanted), logits.shape[1])
        return Candidates(np.array(wanted, np.intp), counts, ids, logits[wanted])


def asked_after(n_rows: int, answered: set[int], **kind: Any) -> list[list[int]]:
    """The rows that a second finder is asked for, after a first one has answered some."""
    second = Recorder(Largest(set(range(n_rows))))
    batch = BatchSampler(500, 1, (Largest(answered), second))
    wanted = [params(seed=seed, **kind) for seed in range(n_rows)]
    check(batch, rows(n_rows, 500), wanted, [[]] * n_rows, [])
    batch.close()
    return second.asked


@pytest.mark.parametrize("kind", [{}, {"temperature": 0.0}])
def test_the_next_finder_is_asked_for_the_rows_that_the_one_before_left_out(
    kind: dict[str, Any],
) -> None:
    every = set(range(20))
    assert asked_after(20, every, **kind) == []
    few = set(range(MAX_LEFT_OUT))
    assert asked_after(20, every - few, **kind) == []
    more = set(range(MAX_LEFT_OUT + 1))
    assert asked_after(20, every - more, **kind) == [sorted(more)]
    assert asked_after(20, set(), **kind) == [sorted(every)]


def test_no_finder_is_asked_for_rows_whose_chain_needs_the_whole_row() -> None:
    assert asked_after(20, set(), top_k=0) == []


@pytest.mark.parametrize("n_left", [5, 15])
def test_the_sampler_s_own_finders_choose_the_tokens_of_the_rows_that_are_left(n_left: int) -> None:
    batch = BatchSampler(500, 1, (Largest(set(range(n_left, 20))),))
    for kind in ({}, {"temperature": 0.0}):
        wanted = [params(seed=seed, **kind) for seed in range(20)]
        check(batch, rows(20, 500), wanted, [[]] * 20, [])
    batch.close()


@pytest.mark.parametrize("n_vocab", [45, 528, 5000])
def test_columns_look_at_few_tokens_of_a_small_vocabulary(n_vocab: int) -> None:
    columns, k = Columns(n_vocab, RowThreads(1)), 40
    nothing = np.empty(0, np.float32)
    changed = ChangedLogits(np.empty(0, np.int64), nothing, nothing)
    found = columns.find(rows(20, n_vocab), np.full(20, k), changed, None)
    assert found.counts.min() >= k
    assert found.counts.max() <= 2 * k
