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
from gpufc.sampling import SamplingParams
from tests.engine_worker.sampling.aligned_logits import aligned
from tests.engine_worker.sampling.batches import (
    FINDERS,
    Rows,
    check,
    make,
    params,
    pick,
    rows,
)

VOCABULARIES = [1, 2, 5, 16, 17, 31, 32, 33, 100, 333, 1000]
"""Smaller than a column, a column and one more, and many columns with and without a rest."""

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


# any parameters, any logits

logit = st.one_of(
    st.floats(-50, 50, width=32),
    st.floats(-(2.0**-100), 2.0**-100, width=32),
    st.sampled_from([-np.inf, 0.0, 1.0, 4.0, 1e30, -1e30, 3.4e38]),
)


@st.composite
def any_params(draw: st.DrawFn, n_vocab: int) -> SamplingParams:
    token = st.integers(0, n_vocab - 1)
    bias = st.one_of(st.floats(-5, 5), st.sampled_from([-100.0, 20.0, 1e300, -1e300]))

    def some_or_off(some: st.SearchStrategy[float], off: float) -> st.SearchStrategy[float]:
        return st.one_of(st.just(off), some)

    return SamplingParams(
        seed=draw(st.integers(0, 2**63 - 1)),
        temperature=draw(st.one_of(st.sampled_from([0.0, 0.8]), st.floats(0, 100))),
        top_k=draw(st.one_of(st.integers(0, 12), st.sampled_from([40, MAX_TOP_K + 1, 2000]))),
        top_p=draw(some_or_off(st.floats(0, 1), 1.0)),
        min_p=draw(some_or_off(st.floats(0, 1), 0.0)),
        typical_p=draw(some_or_off(st.floats(0, 1), 1.0)),
        repeat_penalty=draw(some_or_off(st.floats(0, 10, exclude_min=True), 1.0)),
        repeat_last_n=draw(st.sampled_from([-1, 0, 3, 64])),
        frequency_penalty=draw(some_or_off(st.floats(-2, 2), 0.0)),
        presence_penalty=draw(some_or_off(st.floats(-2, 2), 0.0)),
        logit_bias=tuple(draw(st.lists(st.tuples(token, bias), max_size=4))),
        ignore_eos=draw(st.booleans()),
        top_n_sigma=draw(some_or_off(st.floats(0, 4), 0.0)),
    )


@st.composite
def any_row(draw: st.DrawFn, n_vocab: int) -> Rows:
    """Logits of some spread, rounded so that there are ties or not, with a few odd ones."""
    scale = draw(st.sampled_from([0.0, 0.5, 3.0, 20.0]))
    row = rows(1, n_vocab, draw(st.integers(0, 2**32)), scale)[0]
    row = row.round(draw(st.sampled_from([0, 1, 6])))
    if draw(st.booleans()):
        row[:] = draw(logit)
    for place, value in draw(st.dictionaries(st.integers(0, n_vocab - 1), logit)).items():
        row[place] = value
    if row.max() == -np.inf:
        row[draw(st.integers(0, n_vocab - 1))] = 0.0
    return row


@pytest.mark.parametrize("found_by", FINDERS)
@settings(deadline=None)
@given(data=st.data())
def test_any_batch_of_any_parameters_gets_the_plain_chain_s_tokens(
    data: st.DataObject, found_by: str
) -> None:
    n_vocab = data.draw(st.sampled_from(VOCABULARIES))
    token = st.integers(0, n_vocab - 1)
    n_rows = data.draw(st.integers(1, 5))
    batch = make(n_vocab, 1, found_by)
    check(
        batch,
        np.stack([data.draw(any_row(n_vocab)) for _ in range(n_rows)]),
        [data.draw(any_params(n_vocab)) for _ in range(n_rows)],
        [data.draw(st.lists(token, max_size=20)) for _ in range(n_rows)],
        data.draw(st.lists(token, max_size=2)),
    )


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
    n_vocab: int, kinds: list[dict[str, Any]], finder: str
) -> None:
    n_rows = 22
    generator = np.random.default_rng(n_vocab)
    histories = [generator.integers(0, n_vocab, 100).tolist() for _ in range(n_rows)]
    logits = rows(n_rows, n_vocab, seed=len(kinds))
    for row, history in zip(logits, histories, strict=True):
        row[history[-20:]] += 8.0  # likely ones among those with a penalty
    logits[3::5] = logits[3::5].round(1)  # many ties
    batch = make(n_vocab, 3, finder)
    try:
        wanted = [params(seed=row, **kinds[row % len(kinds)]) for row in range(n_rows)]
        best = logits.argmax(axis=1).tolist()
        check(batch, logits, wanted, histories, best[:2])
    finally:
        batch.close()


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


@pytest.mark.parametrize("batch", [50_257], indirect=True)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", MIXED)
def test_a_logit_that_is_no_number_or_infinite_fails_the_batch_wherever_it_is(
    batch: BatchSampler, bad: float, kind: dict[str, Any]
) -> None:
    good = rows(12, 50_257)
    history = [9, 50_256]
    picks = [pick(params(**kind), 50_257, history, [0])] * 12
    batch.choose(good, prepare(picks))
    for row, token in [(0, 0), (5, 8), (5, 9), (11, 50_256), (11, 31_000)]:
        spoilt = aligned(good)
        spoilt[row, token] = bad
        with pytest.raises(DecodeFailed):
            batch.choose(spoilt, prepare(picks))


@pytest.mark.parametrize("batch", [1000], indirect=True)
@pytest.mark.parametrize("kind", [{}, {"temperature": 0.0}, {"top_k": 0}])
def test_a_row_without_any_finite_logit_fails_the_batch(
    batch: BatchSampler, kind: dict[str, Any]
) -> None:
    logits = rows(3, 1000)
    logits[1] = -np.inf
    with pytest.raises(DecodeFailed):
        batch.choose(logits, prepare([pick(params(**kind), 1000, [], [])] * 3))


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
    assert set(threading.enumerate()) > before
    batch.close()
    assert set(threading.enumerate()) == before
