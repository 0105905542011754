from typing import Any

import pytest

from engine_worker.placement import cells
from engine_worker.placement.cells import Layout, Store, Wish
from gpufc.config import KvUnified
from gpufc.errors import MemoryShort

MIB = 1 << 20
GIB = 1 << 30


def host(available: int, cell_bytes: int = 23_040, score_bytes: int = 0) -> Store:
    return Store(
        cell_bytes=cell_bytes,
        score_bytes=score_bytes,
        available_bytes=available,
        on_gpu=False,
    )


def gpu(available: int, cell_bytes: int = 23_040, score_bytes: int = 0) -> Store:
    return Store(
        cell_bytes=cell_bytes,
        score_bytes=score_bytes,
        available_bytes=available,
        on_gpu=True,
    )


def wish(n_ctx: int, n_running: int, **more: Any) -> Wish:
    more.setdefault("unified", KvUnified.TRUE)
    return Wish(n_ctx=n_ctx, n_running=n_running, n_sequences=n_running + 4, **more)


@pytest.mark.parametrize(
    ("n_ctx", "n_running", "available", "expected"),
    [
        (1000, 2, 100_000 * MIB, 2048),  # all that can be used
        (4096, 100, 100_000 * MIB, 23_552),  # 512 MiB are enough
        (65_536, 100, 100_000 * MIB, 131_072),  # but two whole contexts always
        (4096, 100, 400 * MIB, 7424),  # 40 % of the memory
        (4096, 100, 120 * MIB, 4096),  # one context, however little there is
    ],
)
def test_cells_of_one_cache_on_a_host(
    n_ctx: int, n_running: int, available: int, expected: int
) -> None:
    layout = cells.choose_layout(wish(n_ctx, n_running), [host(available)])
    assert layout == Layout(expected, unified=True)


def test_on_a_gpu_four_fifths_of_the_free_memory_are_used() -> None:
    layout = cells.choose_layout(wish(4096, 100), [gpu(10_000 * MIB, MIB)])
    assert layout == Layout(cells.round_up(8000), unified=True)


def test_scores_of_all_cells_count_for_one_cache() -> None:
    layout = cells.choose_layout(wish(4096, 100), [gpu(10_000 * MIB, MIB // 2, MIB // 2)])
    assert layout == Layout(cells.round_up(8000), unified=True)


def test_where_a_cache_lies_on_both_the_smaller_room_decides() -> None:
    stores = [gpu(10_000 * MIB, MIB), host(15_000 * MIB, MIB)]
    assert cells.choose_layout(wish(2048, 100), stores).n_cells == cells.round_up(4096)


def test_a_context_that_does_not_fit_says_how_much_it_needs_and_what_to_set() -> None:
    with pytest.raises(
        MemoryShort, match=r"4,096 cells needs 4.0 GiB, and 900 MiB of host .* smaller n_ctx"
    ) as caught:
        cells.choose_layout(wish(4096, 1), [host(1000 * MIB, MIB)])
    assert not caught.value.on_device
    with pytest.raises(MemoryShort, match=r"of device memory .* n_gpu_layers") as caught:
        cells.choose_layout(wish(4096, 1), [gpu(1000 * MIB, MIB), host(GIB * 100)])
    assert caught.value.on_device
    assert caught.value.needed_bytes == 4096 * MIB


def test_streams_where_they_fit_and_nobody_has_said_otherwise() -> None:
    asked = wish(4096, 10, unified=KvUnified.AUTO)
    streams = Layout(14 * 4096, unified=False)
    assert cells.choose_layout(asked, [host(8 * GIB)]) == streams  # 1.2 GiB of 2.0
    assert cells.choose_layout(asked, [host(4 * GIB)]).unified  # of 1.0
    assert cells.choose_layout(asked, [host(400 * GIB, 40_000)]).unified  # over 2.0
    assert cells.choose_layout(asked, [gpu(2 * GIB)]) == streams  # of 1.6
    assert cells.choose_layout(asked, [gpu(1 * GIB)]).unified
    assert cells.choose_layout(asked, [gpu(80 * GIB), host(1 * GIB)]).unified


def test_of_streams_a_token_attends_to_its_own_only() -> None:
    asked = wish(4096, 10, unified=KvUnified.AUTO)
    assert not cells.choose_layout(asked, [gpu(2 * GIB, score_bytes=60_000)]).unified
    assert cells.choose_layout(asked, [gpu(2 * GIB, score_bytes=120_000)]).unified


def test_a_number_of_cells_bounds_streams_too() -> None:
    for kv_cells, unified in ((14 * 4096, False), (14 * 4096 - 1, True)):
        asked = wish(4096, 10, unified=KvUnified.AUTO, kv_cells=kv_cells)
        assert cells.choose_layout(asked, [host(100 * GIB)]) == Layout(14 * 4096, unified)


def test_streams_that_were_asked_for_may_take_all_there_is_but_not_more() -> None:
    asked = wish(4096, 10, unified=KvUnified.FALSE)
    assert cells.choose_layout(asked, [host(2 * GIB)]) == Layout(14 * 4096, unified=False)
    with pytest.raises(MemoryShort, match=r"57,344 cells"):
        cells.choose_layout(asked, [host(GIB)])


def test_one_cache_does_not_outgrow_the_cells_at_which_a_model_changes() -> None:
    asked = wish(4096, 10, most_shared=4096)
    assert cells.choose_layout(asked, [host(64 * GIB)]) == Layout(4096, unified=True)


def test_states_of_all_sequences_are_taken_before_cells() -> None:
    store = Store(
        cell_bytes=MIB,
        score_bytes=0,
        states_bytes=2 * GIB,
        available_bytes=10 * GIB,
        on_gpu=False,
    )
    layout = cells.choose_layout(wish(1024, 4), [store])
    assert layout.n_cells == 2048  # 40 % of the memory, less the states
    with pytest.raises(MemoryShort, match=r"with 2\.0 GiB of states"):
        cells.choose_layout(wish(8192, 4), [store])
