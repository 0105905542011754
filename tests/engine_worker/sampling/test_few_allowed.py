"""Rows whose masks allow few tokens: all of these are candidates, and no other finder is asked."""

import numpy as np
import pytest

from engine_worker.backend.candidates import ChangedLogits, RowMasks
from engine_worker.sampling.batch import BatchSampler, prepare
from engine_worker.sampling.few_allowed import MOST, FewAllowed, few_tokens
from engine_worker.sampling.threads import RowThreads
from tests.engine_worker.sampling.batches import Recorder, check_each, params, pick, rows
from tests.engine_worker.sampling.masks import allowing

N_VOCAB = 1000
NO_CHANGE = ChangedLogits(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.float32))


def masks_of(*allowed: list[int]) -> RowMasks:
    at = np.arange(len(allowed))
    words = np.stack([allowing(N_VOCAB, tokens) for tokens in allowed])
    return RowMasks(at, words, few_tokens(at, words))


def test_the_tokens_of_short_masks_are_found_by_rising_id() -> None:
    many = list(range(MOST + 1))
    few = masks_of([5], many, [999, 31, 32, 0], [], many[:-1]).few
    assert few is not None
    assert few.rows.tolist() == [0, 2, 4]
    assert few.counts.tolist() == [1, 4, MOST]
    assert few.ids[0, :1].tolist() == [5]
    assert few.ids[1, :4].tolist() == [0, 31, 32, 999]
    assert few.ids[2].tolist() == many[:-1]
    assert masks_of(many, []).few is None


@pytest.mark.parametrize("kind", [{}, {"temperature": 0.0}, {"top_n_sigma": 1.0}, {"top_k": 200}])
def test_no_other_finder_is_asked_for_them(kind: dict[str, float]) -> None:
    generator = np.random.default_rng(4)
    sizes = [1, 2, 9, MOST, MOST - 1, 1, 3, 30]
    allowed = [generator.choice(N_VOCAB, size, replace=False).tolist() for size in sizes]
    picks = [
        pick(params(seed=row, **kind), N_VOCAB, [], [], allowing(N_VOCAB, tokens))  # type: ignore[arg-type]
        for row, tokens in enumerate(allowed)
    ]
    batch = BatchSampler(N_VOCAB, 1)
    other = Recorder(batch._finders[-1])
    batch._finders = (*batch._finders[:-1], other)
    tokens = batch.choose(rows(len(sizes), N_VOCAB), prepare(picks))
    assert other.asked == []
    assert all(token in some for token, some in zip(tokens, allowed, strict=True))
    batch.close()


def test_banned_and_penalized_tokens_of_short_masks_are_as_in_the_plain_chain() -> None:
    n_rows = 12
    logits = rows(n_rows, N_VOCAB)
    generator = np.random.default_rng(1)
    allowed = [generator.choice(N_VOCAB, 1 + row, replace=False).tolist() for row in range(n_rows)]
    wanted = [
        params(seed=row, repeat_penalty=1.5, logit_bias=((tokens[-1], -100.0), (tokens[0], 9.0)))
        for row, tokens in enumerate(allowed)
    ]
    histories = [tokens[:4] for tokens in allowed]
    batch = BatchSampler(N_VOCAB, 1)
    masks = [allowing(N_VOCAB, tokens) for tokens in allowed]
    check_each({"": batch}, logits, wanted, histories, [], masks)
    batch.close()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_with_a_forbidden_logit_that_is_not_finite_is_left_out(bad: float) -> None:
    logits = rows(3, N_VOCAB)
    logits[1, 500] = bad
    threads = RowThreads(1)
    found = FewAllowed(threads).find(
        logits, np.ones(3, np.intp), NO_CHANGE, masks_of([1], [2], [3])
    )
    threads.close()
    assert found is not None
    assert found.rows.tolist() == [0, 2]
    assert found.ids[:, 0].tolist() == [1, 3]
