"""The measure of growth tells linear work from quadratic work, and counts calls exactly."""

from collections.abc import Callable

import pytest

from tests.growth import assert_linear, calls


def looked_up(kind: Callable[[range], object], n: int) -> Callable[[], object]:
    known = kind(range(n))
    return lambda: [number in known for number in range(n)]  # type: ignore[operator]


def test_linear_work_passes() -> None:
    assert_linear(lambda n: looked_up(set, n), 200)


def test_quadratic_work_fails() -> None:
    with pytest.raises(AssertionError, match="8 times as many items took at least"):
        assert_linear(lambda n: looked_up(list, n), 200)


def test_calls_are_counted_in_python_and_in_c() -> None:
    assert calls(lambda: None) == 1
    assert calls(lambda: len("")) == 2
    assert calls(lambda: (len(""), len(""), looked_up)) == 3
