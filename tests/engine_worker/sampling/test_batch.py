import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_worker.sampling.batch import (
    MAX_TOP_K,
    BatchSampler,
    Pick,
    prepare,
)
from engine_worker.sampling.sampler import Sampler
from gpufc.errors import DecodeFailed, RequestError
from tests.engine_worker.sampling.aligned_logits import aligned
from tests.engine_worker.sampling.any_batch import check_any_batch
from tests.engine_worker.sampling.batches import (
    FINDERS,
    check,
    check_each,
    each_finder,
    make,
    params,
    pick,
    rows,
)

REAL = [49_152, 50_257, 151_936]
"""SmolLM2, GPT-2 (one logit more than whole columns), Qwen."""


@pytest.fixture(params=FINDERS)
def finder(request: pytest.FixtureRequest) -> str:
    """The finders that are asked first."""
    return str(request.param)


@pytest.fixture
def batch(request: pytest.FixtureRequest, finder: str) -> Iterator[BatchSampler]:
    sampler = make(request.param, 3, finder)
    yield sampler
    sampler.close()


@settings(deadline=None)
@given(data=st.data())
def test_any_batch_of_any_parameters_gets_the_plain_chain_s_tokens(data: st.DataObject) -> None:
    check_any_batch(data, most_rows=5)


# real vocabularies

MIXED: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"ignore_eos": True},
    {"repeat_penalty": 1.1},
    {"frequency_penalty": 0.5, "presence_penalty": -0.5, "repeat_last_n": -1},
    {"top_k": 1, "logit_bias": ((7, 30.0), (8, -100.0))},
    {"top_k": MAX_TOP_K, "top_p": 1.0, "min_p": 0.0},
    {"top_k": MAX_TOP_K + 1, "top_p": 1.0, "min_p": 0.0},
    {"top_k": 0},
    {"typical_p": 0.5},
    {"top_n_sigma": 1.0},
    {"top_n_sigma": 1.5, "temperature": 0.0, "repeat_penalty": 1.1},
    {"top_n_sigma": 2.0, "top_k": 0, "repeat_penalty": 1.1},
    {"temperature": 0.0, "ignore_eos": True, "repeat_penalty": 2.0},
]


@pytest.mark.parametrize("n_vocab", REAL)
@pytest.mark.parametrize("kinds", [MIXED[:1], MIXED[1:2], MIXED[:5], MIXED])
def test_many_rows_of_real_vocabularies_get_the_plain_chain_s_tokens(
    n_vocab: int, kinds: list[dict[str, Any]]
) -> None:
    n_rows = 16
    generator = np.random.default_rng(n_vocab)
    histories = [generator.integers(0, n_vocab, 100).tolist() for _ in range(n_rows)]
    logits = rows(n_rows, n_vocab, seed=len(kinds))
    for row, history in zip(logits, histories, strict=True):
        row[history[-20:]] += 8.0  # likely ones among those with a penalty
    logits[3::5] = logits[3::5].round(1)  # many ties
    wanted = [params(seed=row, **kinds[row % len(kinds)]) for row in range(n_rows)]
    best = logits.argmax(axis=1).tolist()
    with each_finder(n_vocab, 3) as batches:
        check_each(batches, logits, wanted, histories, best[:2])


@pytest.mark.parametrize("batch", [20_000], indirect=True)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_of_equal_logits_keep_the_lowest_ids(batch: BatchSampler, temperature: float) -> None:
    logits = np.zeros((3, 20_000), np.float32)
    wanted = [params(temperature=temperature, top_k=3, seed=seed) for seed in range(3)]
    picks = [pick(one, 20_000, [], []) for one in wanted]
    chosen = batch.choose(logits, prepare(picks))
    assert all(isinstance(token, int) and token < 3 for token in chosen)
    check(batch, logits, wanted, [[], [], []], [])


@pytest.mark.parametrize("batch", [1000], indirect=True)
def test_logits_that_doubles_cannot_tell_apart_beside_the_best_are_ties(
    batch: BatchSampler,
) -> None:
    logits = np.full((40, 1000), -5.0, np.float32)
    logits[:, 500] = 10.0
    logits[:, [40, 300, 900]] = [1e-30, 2e-30, 3e-30]
    wanted = [params(temperature=100.0, top_k=2, top_p=1, min_p=0, seed=row) for row in range(40)]
    check(batch, logits, wanted, [[]] * 40, [])
    tokens = batch.choose(logits, prepare([pick(one, 1000, [], []) for one in wanted]))
    assert set(tokens) == {40, 500}


@pytest.mark.parametrize("batch", [20_000], indirect=True)
@pytest.mark.parametrize("kind", [{"repeat_penalty": 10.0, "repeat_last_n": -1}, "bans"])
def test_the_first_k_are_looked_for_after_the_likeliest_tokens_have_been_lowered(
    batch: BatchSampler, kind: Any
) -> None:
    logits = rows(30, 20_000)
    likeliest = logits.argsort(axis=1)[:, -20:].tolist()  # half of top_k
    kinds = [
        {"logit_bias": tuple((i, -100.0) for i in row)} if kind == "bans" else kind
        for row in likeliest
    ]
    neutral = {"temperature": 5.0, "top_p": 1.0, "min_p": 0.0}
    wanted = [params(seed=seed, **neutral, **given) for seed, given in enumerate(kinds)]
    check(batch, logits, wanted, likeliest, [])


# rows do not meddle with each other


@pytest.mark.parametrize("batch", [49_152], indirect=True)
def test_a_row_s_token_depends_on_no_other_row_and_not_on_the_threads(batch: BatchSampler) -> None:
    logits = rows(24, 49_152)
    histories = np.random.default_rng(1).integers(0, 49_152, (24, 50)).tolist()
    picks = [
        pick(params(seed=row, **MIXED[row % len(MIXED)]), 49_152, history, [row])
        for row, history in enumerate(histories)
    ]
    together = batch.choose(logits, prepare(picks))
    alone = BatchSampler(49_152, n_threads=1)
    assert together == [
        alone.choose(logits[row : row + 1], prepare([picks[row]]))[0] for row in range(24)
    ]
    assert together[::-1] == batch.choose(logits[::-1].copy(), prepare(picks[::-1]))


@pytest.mark.parametrize("batch", [100], indirect=True)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_without_any_token_left_gets_its_error_and_the_others_tokens(
    batch: BatchSampler, temperature: float
) -> None:
    banning = params(
        temperature=temperature, logit_bias=tuple((token, -100.0) for token in range(100))
    )
    wanted = [params(), banning, params(temperature=0.0)]
    logits = rows(3, 100)
    chosen = batch.choose(logits, prepare([pick(one, 100, [], []) for one in wanted]))
    assert isinstance(chosen[0], int)
    assert isinstance(chosen[1], RequestError)
    assert chosen[1].param == "logit_bias"
    assert chosen[2] == logits[2].argmax()


@pytest.mark.parametrize("batch", [1000], indirect=True)
@pytest.mark.parametrize("kind", [{"repeat_penalty": 5.0}, {"repeat_penalty": 5.0, "top_k": 0}])
def test_what_follows_the_history_in_its_list_is_not_looked_at(
    batch: BatchSampler, kind: dict[str, Any]
) -> None:
    logits = rows(1, 1000)
    best = int(logits.argmax())
    sampler = Sampler(params(temperature=0.0, **kind), 1000)
    assert batch.choose(logits, prepare([Pick(sampler, [1, best], 1, 0, 0)])) == [best]
    assert batch.choose(logits, prepare([Pick(sampler, [1, best], 2, 0, 0)])) != [best]


@pytest.mark.parametrize("batch", [1000], indirect=True)
def test_an_empty_batch_has_no_tokens(batch: BatchSampler) -> None:
    assert batch.choose(np.empty((0, 1000), np.float32), prepare([])) == []


# a model gone wrong


@pytest.mark.parametrize("batch", [5009], indirect=True)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", MIXED)
def test_a_logit_that_is_no_number_or_infinite_fails_the_batch_wherever_it_is(
    batch: BatchSampler, bad: float, kind: dict[str, Any]
) -> None:
    good = rows(12, 5009)
    history = [9, 5008]
    picks = [pick(params(**kind), 5009, history, [0])] * 12
    batch.choose(good, prepare(picks))
    for row, token in [(0, 0), (5, 8), (5, 9), (11, 5008), (11, 3100)]:
        spoilt = aligned(good)
        spoilt[row, token] = bad
        with pytest.raises(DecodeFailed):
            batch.choose(spoilt, prepare(picks))
        with pytest.raises(DecodeFailed):
            batch.choose(spoilt[row : row + 1], prepare(picks[:1]))


@pytest.mark.parametrize("batch", [5009], indirect=True)
@pytest.mark.parametrize("kind", [{}, {"temperature": 0.0}, {"top_k": 0}])
def test_a_row_without_any_finite_logit_fails_the_batch(
    batch: BatchSampler, kind: dict[str, Any]
) -> None:
    logits = rows(3, 5009)
    logits[1] = -np.inf
    picks = [pick(params(**kind), 5009, [], [])] * 3
    for spoilt in (logits, logits[1:2]):
        with pytest.raises(DecodeFailed):
            batch.choose(spoilt, prepare(picks[: len(spoilt)]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("top_k", [0, 40])
@pytest.mark.parametrize("n_rows", [1, 2])
@pytest.mark.parametrize("batch", [1000], indirect=True)
def test_no_penalty_hides_a_logit_that_is_no_number(
    batch: BatchSampler, bad: float, top_k: int, n_rows: int
) -> None:
    logits = rows(n_rows, 1000)
    logits[0, 1] = bad
    wanted = params(repeat_penalty=1.1, top_k=top_k)
    with pytest.raises(DecodeFailed):
        batch.choose(logits, prepare([pick(wanted, 1000, [1], [])] * n_rows))


@pytest.mark.parametrize("n_rows", [1, 2])
@pytest.mark.parametrize("batch", [1000], indirect=True)
def test_the_coldest_temperature_is_greedy(batch: BatchSampler, n_rows: int) -> None:
    logits = rows(n_rows, 1000)
    chosen = batch.choose(
        logits, prepare([pick(params(temperature=5e-324), 1000, [], [])] * n_rows)
    )
    assert chosen == logits.argmax(axis=1).tolist()


# threads


def test_close_ends_the_threads() -> None:
    before = set(threading.enumerate())
    batch = BatchSampler(49_152, n_threads=3)
    batch.choose(rows(24, 49_152), prepare([pick(params(), 49_152, [], [])] * 24))
    assert set(threading.enumerate()) - before
    batch.close()
    assert not set(threading.enumerate()) - before
