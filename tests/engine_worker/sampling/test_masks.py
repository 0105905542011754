"""A token that a mask forbids is never chosen, whichever finder answers the row."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_worker.sampling.batch import BatchSampler, Pick, prepare
from engine_worker.sampling.sampler import Sampler
from gpufc.errors import DecodeFailed, InvalidGrammar, InvalidRequest
from gpufc.sampling import SamplingParams
from tests.engine_worker.sampling.aligned_logits import aligned
from tests.engine_worker.sampling.any_batch import check_any_batch
from tests.engine_worker.sampling.batches import (
    FINDERS,
    check_each,
    each_finder,
    make,
    params,
    pick,
    rows,
)
from tests.engine_worker.sampling.masks import allowing, forbidding, mask_of

KINDS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"ignore_eos": True},
    {"repeat_penalty": 1.3},
    {"frequency_penalty": 0.5, "presence_penalty": -0.5, "repeat_last_n": -1},
    {"top_k": 1, "logit_bias": ((7, 30.0), (8, -100.0))},
    {"top_k": 200, "top_p": 0.5},
    {"top_k": 0, "top_p": 1.0, "min_p": 0.2},
    {"top_k": 0, "min_p": 0.05},
    {"typical_p": 0.5},
    {"top_n_sigma": 1.0, "repeat_penalty": 1.3, "top_p": 1.0, "min_p": 0.0},
    {"top_n_sigma": 2.0, "top_k": 0},
    {"top_k": 5, "typical_p": 0.9, "top_p": 1.0, "min_p": 0.0, "temperature": 2.0},
    {"temperature": 0.0, "ignore_eos": True, "repeat_penalty": 2.0},
]


@settings(deadline=None)
@given(data=st.data())
def test_any_batch_under_any_masks_gets_the_plain_chain_s_tokens(data: st.DataObject) -> None:
    check_any_batch(data, most_rows=7, masked=True)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.95])
@pytest.mark.parametrize("n_masked", [1, 8, 24])
def test_masked_rows_among_others_get_the_plain_chain_s_tokens(share: float, n_masked: int) -> None:
    n_vocab, n_rows = 20_001, 24
    generator = np.random.default_rng(n_masked)
    logits = rows(n_rows, n_vocab, seed=n_masked)
    logits[3::5] = logits[3::5].round(1)  # many ties
    histories = generator.integers(0, n_vocab, (n_rows, 60)).tolist()
    for row, history in zip(logits, histories, strict=True):
        row[history[-20:]] += 8.0  # likely tokens among the penalized ones
    some = [mask_of(generator.random(n_vocab) < share) for _ in range(n_masked)]
    masks = [*some, *[None] * (n_rows - n_masked)]
    with each_finder(n_vocab, 2) as batches:
        for kinds in (KINDS, KINDS[:1], KINDS[1:2]):
            wanted = [params(seed=row, **kinds[row % len(kinds)]) for row in range(n_rows)]
            check_each(batches, logits, wanted, histories, [5, 6], masks)


@pytest.mark.parametrize("finder", FINDERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_rows", [1, 6])
def test_a_row_without_an_allowed_token_gets_its_error_and_the_others_tokens(
    finder: str, kind: dict[str, Any], n_rows: int
) -> None:
    logits = rows(n_rows, 1000)
    batch = make(1000, 1, finder)
    nothing = allowing(1000, [])
    picks = [
        pick(params(**kind), 1000, [3], [5], nothing if row == 0 else None) for row in range(n_rows)
    ]
    first, *others = batch.choose(logits, prepare(picks))
    assert isinstance(first, InvalidGrammar)
    assert all(isinstance(token, int) for token in others)
    batch.close()


@pytest.mark.parametrize("n_rows", [1, 6])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_biases_that_ban_every_allowed_token_are_the_error(n_rows: int, temperature: float) -> None:
    banned = params(temperature=temperature, logit_bias=((4, -100.0), (5, -100.0)))
    picks = [pick(banned, 1000, [], [], allowing(1000, [4, 5]))] * n_rows
    batch = make(1000, 1, "columns")
    for error in batch.choose(rows(n_rows, 1000), prepare(picks)):
        assert isinstance(error, InvalidRequest)
        assert error.param == "logit_bias"
    batch.close()


@pytest.mark.parametrize("finder", FINDERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_rows", [1, 6])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_mask_hides_a_logit_that_is_not_finite(
    finder: str, kind: dict[str, Any], n_rows: int, bad: float
) -> None:
    spoilt = aligned(rows(n_rows, 1000))
    spoilt[0, 77] = bad
    batch = make(1000, 1, finder)
    picks = [pick(params(**kind), 1000, [77], [5], forbidding(1000, [77]))] * n_rows
    with pytest.raises(DecodeFailed):
        batch.choose(spoilt, prepare(picks))
    batch.close()


@pytest.mark.parametrize("n_rows", [1, 2])
def test_a_raised_bias_does_not_allow_a_forbidden_token(n_rows: int) -> None:
    raised = params(temperature=0.0, logit_bias=((9, 50.0),))
    batch = make(1000, 1, "columns")
    logits = rows(n_rows, 1000)
    logits[:, 9] = 100.0
    picks = [pick(raised, 1000, [], [], forbidding(1000, [9]))] * n_rows
    expected = np.delete(logits, 9, axis=1).argmax(axis=1)
    assert batch.choose(logits, prepare(picks)) == (expected + (expected >= 9)).tolist()
    batch.close()


def test_rows_of_one_sequence_have_their_own_masks() -> None:
    sampler = Sampler(SamplingParams(seed=3), 1000)
    history = [1, 2, 3, 4, 5, 6]
    picks = [
        Pick(sampler, history, 3 + at, 0, at, allowing(1000, [10 * at + 1])) for at in range(4)
    ]
    batch = BatchSampler(1000, 1)
    assert batch.choose(rows(4, 1000), prepare(picks)) == [1, 11, 21, 31]
    batch.close()


def test_words_beyond_the_vocabulary_are_ignored_and_too_few_are_refused() -> None:
    sampler = Sampler(SamplingParams(seed=3), 1000)
    logits = rows(2, 1000)
    longer = np.append(allowing(1000, [7]), np.int32(-1))
    batch = BatchSampler(1000, 1)
    assert batch.choose(logits, prepare([Pick(sampler, (), 0, 0, 0, longer)] * 2)) == [7, 7]
    assert sampler.choose(logits[0], [], 0, 0, longer) == 7
    with pytest.raises(ValueError, match="fewer bits"):
        prepare([Pick(sampler, (), 0, 0, 0, longer[:31])])
    batch.close()
