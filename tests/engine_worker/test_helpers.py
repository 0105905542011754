"""Work that is shared with threads: all of it is done, once, and what goes wrong is told."""

import threading

import pytest

from engine_worker.helpers import Helpers


@pytest.mark.parametrize("n_threads", [0, 1, 3])
def test_every_piece_is_done_once(n_threads: int) -> None:
    helpers = Helpers(n_threads)
    for n_pieces in (0, 1, 2, 50):
        done: list[int] = []
        helpers.share(range(n_pieces), done.append)
        assert sorted(done) == list(range(n_pieces))
    helpers.close()


def test_threads_work_at_the_same_time() -> None:
    helpers = Helpers(2)
    together = threading.Barrier(3, timeout=30)
    helpers.share(range(3), lambda _: together.wait())
    helpers.close()


def test_an_error_is_raised_when_all_else_is_done_and_then_things_go_on() -> None:
    helpers = Helpers(2)
    done: list[int] = []

    def work(piece: int) -> None:
        if piece == 3:
            raise ValueError("this one")
        done.append(piece)

    with pytest.raises(ValueError, match="this one"):
        helpers.share(range(6), work)
    assert sorted(done) == [0, 1, 2, 4, 5]
    done.clear()
    helpers.share(range(3), done.append)
    assert sorted(done) == [0, 1, 2]
    helpers.close()


def test_the_threads_end() -> None:
    before = threading.active_count()
    helpers = Helpers(2)
    assert threading.active_count() == before + 2
    helpers.close()
    assert threading.active_count() == before
