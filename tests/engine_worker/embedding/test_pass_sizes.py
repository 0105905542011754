from collections.abc import Callable

import pytest

from engine_worker.embedding.pass_sizes import LONGEST_S, SIZES, PassSizes


def learnt(seconds: Callable[[int], float], n_passes: int = 20) -> PassSizes:
    """After so many full passes, each of which took `seconds` for its tokens."""
    sizes = PassSizes()
    for _ in range(n_passes):
        size = sizes.best()
        sizes.computed(size, size, seconds(size))
    return sizes


@pytest.mark.parametrize(
    ("price_s", "square_s", "best"),
    [
        (0.0, 1e-6, 128),  # attention over the whole pass
        (0.06, 1e-6, 256),
        (0.1, 1e-7, 512),  # a price for each pass
    ],
)
def test_the_cheapest_size_a_token_is_kept(price_s: float, square_s: float, best: int) -> None:
    def seconds(n_tokens: int) -> float:
        return price_s + 1e-5 * n_tokens + square_s * n_tokens**2

    assert min(SIZES, key=lambda size: seconds(size) / size) == best
    sizes = learnt(seconds)
    assert [sizes.best() for _ in range(5)] == [best] * 5


def test_a_size_that_takes_too_long_is_not_even_tried() -> None:
    a_token_s = LONGEST_S / 200
    sizes = PassSizes()
    tried = set()
    for _ in range(200):
        size = sizes.best()
        tried.add(size)
        sizes.computed(size, size, size * a_token_s)
    assert tried == {SIZES[0]}


def test_a_single_slow_pass_decides_nothing() -> None:
    sizes = learnt(lambda size: 0.1 + 1e-5 * size, n_passes=9)
    sizes.computed(512, 512, 10.0)
    assert sizes.best() == 512


def test_passes_that_are_nearly_empty_show_nothing() -> None:
    sizes = PassSizes()
    for _ in range(20):
        assert sizes.best() == SIZES[0]
        sizes.computed(SIZES[0], 10, 1.0)


def test_inputs_longer_than_a_pass_do_not_stop_the_search() -> None:
    sizes = PassSizes()
    for _ in range(20):
        sizes.computed(sizes.best(), 600, 0.06)
    assert sizes.best() in SIZES


def test_another_best_size_is_found_when_the_machine_changes() -> None:
    sizes = learnt(lambda size: 1e-6 * size**2)
    assert sizes.best() == 128
    for _ in range(100):
        size = sizes.best()
        sizes.computed(size, size, 0.1)
    assert sizes.best() == 512
