"""Imports without garbage collection."""

import gc

import pytest

from gpufc.uncollected import uncollected


def test_no_collection_runs_within_and_later_ones_leave_the_objects_out() -> None:
    gc.collect()
    before, n_frozen = gc.get_stats(), gc.get_freeze_count()
    with uncollected():
        made = [[number] for number in range(10 * gc.get_threshold()[0])]
        assert gc.get_stats() == before
    left = {id(one) for one in gc.get_objects()}
    assert not left & set(map(id, made))
    assert gc.get_freeze_count() >= n_frozen + len(made)  # and what was left out before
    assert gc.isenabled()


def test_collections_go_on_after_an_import_that_fails() -> None:
    with pytest.raises(ImportError), uncollected():
        raise ImportError
    assert gc.isenabled()
