"""Rows with fewer allowed tokens among the found ones than top-k lets pass: exact, or left out."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_worker.sampling.batch import BatchSampler, prepare
from gpufc.sampling import SamplingParams
from tests.engine_worker.sampling.any_batch import any_params, any_row
from tests.engine_worker.sampling.batches import (
    FoundByDevice,
    Recorder,
    check_each,
    params,
    pick,
    rows,
)
from tests.engine_worker.sampling.masks import mask_of

N_VOCAB = 333


class Nothing:
    """A finder that answers no row."""

    def find(self, *_: Any) -> None:
        return None


@st.composite
def masked_params(draw: st.DrawFn) -> SamplingParams:
    """Parameters with which a row may do without unseen tokens, and any others."""
    if draw(st.integers(0, 3)) == 0:
        return draw(any_params(N_VOCAB))
    return SamplingParams(
        seed=draw(st.integers(0, 2**63 - 1)),
        temperature=draw(st.sampled_from([0.0, 0.7, 1.0, 3.0])),
        top_k=draw(st.sampled_from([1, 5, 40, 200])),
        top_p=draw(st.sampled_from([0.1, 0.5, 0.9, 0.95, 0.999, 1.0])),
        min_p=draw(st.sampled_from([0.0, 0.02, 0.05, 0.3])),
        repeat_penalty=draw(st.sampled_from([1.0, 1.3])),
        logit_bias=tuple(draw(st.lists(st.tuples(st.integers(0, N_VOCAB - 1), st.floats(-9, 0))))),
    )


@settings(deadline=None)
@given(data=st.data())
def test_any_masked_rows_get_the_plain_chain_s_tokens(data: st.DataObject) -> None:
    n_rows = data.draw(st.integers(2, 8))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    share = data.draw(st.sampled_from([0.2, 0.4, 0.8]))
    logits = np.stack([data.draw(any_row(N_VOCAB)) for _ in range(n_rows)])
    masks = [mask_of(generator.random(N_VOCAB) < share) for _ in range(n_rows)]
    wanted = [data.draw(masked_params()) for _ in range(n_rows)]
    histories = [generator.integers(0, N_VOCAB, 9).tolist() for _ in range(n_rows)]
    device = FoundByDevice(data.draw(st.sampled_from([6, 12, 41, 64])))
    batch = BatchSampler(N_VOCAB, 1, (device,))
    check_each({"": batch}, logits, wanted, histories, [1], masks)
    batch.close()


@pytest.mark.parametrize("top_p", [0.95, 1.0])
def test_most_rows_need_no_more_than_a_device_s_largest_logits(top_p: float) -> None:
    n_rows, n_vocab = 40, 2000
    logits = rows(n_rows, n_vocab, scale=4.0)
    generator = np.random.default_rng(0)
    masks = [mask_of(generator.random(n_vocab) < 0.4) for _ in range(n_rows)]
    wanted = [params(seed=seed, top_p=top_p) for seed in range(n_rows)]
    second = Recorder(Nothing())
    batch = BatchSampler(n_vocab, 1, (FoundByDevice(), second))
    check_each({"": batch}, logits, wanted, [[]] * n_rows, [], masks)
    (asked,) = second.asked or [[]]
    assert len(asked) < n_rows / 2
    batch.close()


KEPT = {"temperature": 5.0, "min_p": 0.2, "top_p": 1.0, "top_k": 20}


@pytest.mark.parametrize(
    ("changes", "suffices"),
    [
        ({}, True),
        ({"min_p": 0.0}, False),
        ({"min_p": 0.001}, False),
        # the mass before the second token is 1.0, that of the four candidates 1.341, that with the
        # sixteen unseen ones 1.407 at most
        ({"top_p": 0.70}, True),
        ({"top_p": 0.73}, False),
        ({"top_p": 0.76}, True),
        ({"top_p": 0.99}, True),
        ({"top_p": 0.3}, True),
        ({"typical_p": 0.9}, False),
        ({"top_n_sigma": 1.0}, False),
    ],
)
def test_a_row_is_left_out_where_the_unseen_tokens_count(
    changes: dict[str, Any], suffices: bool
) -> None:
    n_rows = 6
    row = np.full(N_VOCAB, -4.0, np.float32)
    row[:20] = 5.0  # forbidden
    row[100], row[101] = 1.5, 0.4
    row[102] = -3.9
    logits = np.tile(row, (n_rows, 1))
    allowed = np.arange(N_VOCAB) >= 100
    wanted = [params(seed=seed, **{**KEPT, **changes}) for seed in range(n_rows)]
    picks = [pick(one, N_VOCAB, [], [], mask_of(allowed)) for one in wanted]
    second = Recorder(Nothing())
    batch = BatchSampler(N_VOCAB, 1, (FoundByDevice(24), second))
    batch.choose(logits, prepare(picks))
    assert (second.asked == []) is suffices
    check_each({"": batch}, logits, wanted, [[]] * n_rows, [], [mask_of(allowed)] * n_rows)
    batch.close()


@pytest.mark.parametrize(
    ("changes", "history"),
    [
        ({"top_p": 0.76, "logit_bias": tuple((token, -50.0) for token in range(5, 25))}, []),
        ({"top_p": 0.70, "presence_penalty": 2.0, "frequency_penalty": 2.0}, list(range(5, 25))),
    ],
)
def test_found_tokens_that_are_lowered_give_their_places_to_unseen_ones(
    changes: dict[str, Any], history: list[int]
) -> None:
    n_rows, n_vocab = 64, 2000
    row = np.full(n_vocab, -9.0, np.float32)
    row[:5] = [0.0, -0.2, -0.5, -1.0, -1.5]
    row[5:25] = -0.1  # lowered
    row[25:55] = -0.05  # forbidden
    row[55:1055] = -3.2  # of which the device finds few
    allowed = (np.arange(n_vocab) < 25) | (np.arange(n_vocab) >= 55)
    wanted = [
        params(seed=seed, temperature=1.0, top_k=40, min_p=0.05, **changes)
        for seed in range(n_rows)
    ]
    batch = BatchSampler(n_vocab, 1, (FoundByDevice(64),))
    logits, masks = np.tile(row, (n_rows, 1)), [mask_of(allowed)] * n_rows
    check_each({"": batch}, logits, wanted, [history] * n_rows, [], masks)
    batch.close()
