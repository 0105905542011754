"""Batches of any parameters, logits and masks, and their tokens beside the plain chain's."""

import numpy as np
from hypothesis import strategies as st

from engine_worker.backend.candidates import MaskWords
from engine_worker.sampling.batch import MAX_TOP_K
from gpufc.sampling import SamplingParams
from tests.engine_worker.sampling.batches import Rows, check_each, each_finder, rows
from tests.engine_worker.sampling.masks import mask_of

VOCABULARIES = [1, 2, 5, 16, 17, 31, 32, 33, 100, 333, 1000, 2048, 2100]
"""Smaller than a column, a column and one more, and many columns with and without a rest. The two
last ones are folded where a row is by itself."""

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


@st.composite
def any_mask(draw: st.DrawFn, n_vocab: int) -> MaskWords | None:
    share = draw(st.sampled_from([None, 0.0, 0.02, 0.5, 0.98, 1.0]))
    if share is None:
        return None
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    return mask_of(generator.random(n_vocab) < share)


def check_any_batch(data: st.DataObject, *, most_rows: int, masked: bool = False) -> None:
    """Draw a batch, and choose its tokens with each finder."""
    n_vocab = data.draw(st.sampled_from(VOCABULARIES))
    token = st.integers(0, n_vocab - 1)
    n_rows = data.draw(st.integers(1, most_rows))
    logits = np.stack([data.draw(any_row(n_vocab)) for _ in range(n_rows)])
    wanted = [data.draw(any_params(n_vocab)) for _ in range(n_rows)]
    histories = [data.draw(st.lists(token, max_size=20)) for _ in range(n_rows)]
    end = data.draw(st.lists(token, max_size=2))
    masks = [data.draw(any_mask(n_vocab)) for _ in range(n_rows)] if masked else None
    with each_finder(n_vocab, 1) as batches:
        check_each(batches, logits, wanted, histories, end, masks)
