import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_worker.backend.embedder import PassLimits
from engine_worker.embedding.packing import pack

SPLITS = PassLimits(n_inputs=4, n_tokens=64, may_split=True)
WHOLE = PassLimits(n_inputs=4, n_tokens=64, may_split=False)


@pytest.mark.parametrize(
    ("lefts", "limits", "allowance", "expected"),
    [
        ([5, 6, 7], SPLITS, 100, [5, 6, 7]),
        ([5, 6, 7], SPLITS, 9, [5, 4]),
        ([5, 6, 7], SPLITS, 11, [5, 6]),
        ([100], SPLITS, 100, [64]),
        ([1] * 9, SPLITS, 100, [1] * 4),
        ([5, 6, 7], WHOLE, 12, [5, 6]),
        ([60, 6], WHOLE, 8, [60]),
        ([6, 60, 1], WHOLE, 32, [6]),
        ([], WHOLE, 8, []),
        ([5], SPLITS, 0, []),
        ([5], WHOLE, 0, []),
    ],
)
def test_inputs_are_packed_in_their_order(
    lefts: list[int], limits: PassLimits, allowance: int, expected: list[int]
) -> None:
    assert pack(lefts, limits, allowance) == expected


@given(
    lefts=st.lists(st.integers(1, 64), min_size=1, max_size=20),
    allowance=st.integers(1, 100),
    may_split=st.booleans(),
)
def test_a_pass_keeps_its_limits_and_gets_on(
    lefts: list[int], allowance: int, may_split: bool
) -> None:
    counts = pack(lefts, PassLimits(4, 64, may_split), allowance)
    assert 1 <= len(counts) <= 4
    assert all(0 < count <= left for count, left in zip(counts, lefts, strict=False))
    assert counts[:-1] == lefts[: len(counts) - 1]
    assert sum(counts) <= (min(allowance, 64) if may_split else 64)
    if not may_split:
        assert counts == lefts[: len(counts)]
