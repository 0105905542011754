import numpy as np
from hypothesis import assume, example, given
from hypothesis import strategies as st

from engine_worker.sampling import row_draw
from engine_worker.sampling.chain import LEAST_TEMPERATURE, Steps, Table, draw
from engine_worker.sampling.row import RowCandidates
from engine_worker.sampling.row_draw import draw_of_row, scores_of

logit = st.one_of(
    st.floats(-50, 50, width=32),
    st.floats(-2, 2, width=32),
    st.integers(-3, 3).map(float),
    st.sampled_from([0.0, 1e-30, 2e-30, 1e30, -1e30, 3.4e38, -3.4e38]),
)
steps_of_any_row = st.builds(
    Steps,
    top_n_sigma=st.sampled_from([0.0, 1.0]),
    top_k=st.one_of(st.integers(1, 12), st.sampled_from([40, row_draw.MOST, float("inf")])),
    typical_p=st.sampled_from([1.0, 1.0, 1.0, 0.5]),
    top_p=st.one_of(st.sampled_from([0.25, 0.5, 1.0]), st.floats(0, 1)),
    log_min_p=st.one_of(st.just(float("-inf")), st.floats(-20, 0)),
    temperature=st.one_of(
        st.sampled_from([0.8, 1.0, LEAST_TEMPERATURE]), st.floats(LEAST_TEMPERATURE, 100)
    ),
)


def of_the_chain(found: RowCandidates, table: Table, number: float) -> int:
    counts, numbers = np.array([len(found.ids)]), np.array([number])
    return int(draw(scores_of(found), counts, table, numbers, found.whole, found.reaches)[0])


@given(
    st.lists(logit, min_size=1, max_size=row_draw.MOST + 2),
    steps_of_any_row,
    st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 1 - 2.0**-53])),
    st.one_of(st.none(), st.floats(1, 1e6)),
    st.floats(0, 100),
)
@example([0.0, 0.0], Steps(top_p=0.5), 0.9, None, 0.0)  # the first holds the share exactly
@example([0.0, 0.0], Steps(), 0.5, None, 0.0)  # the number is at the end of the first
@example([0.0, -1.0], Steps(temperature=4.0), 0.6, None, 0.0)
@example([0.0, 0.0, *[-1.0] * 6], Steps(top_p=0.4, log_min_p=-0.5), 0.9, None, 0.0)
def test_the_candidate_of_one_row_is_the_chain_s(
    values: list[float], steps: Steps, number: float, whole: float | None, reach: float
) -> None:
    assume(whole is None or steps.top_k == float("inf"))
    logits = np.array(values, np.float32)
    found = RowCandidates(float(logits.max()), np.arange(len(logits)), logits, whole)
    if steps.top_n_sigma:
        found = found._replace(reach=reach)
    table = Table(np.array([steps]))
    assert draw_of_row(found, steps, table, number) == of_the_chain(found, table, number)
