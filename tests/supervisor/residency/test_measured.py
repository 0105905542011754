"""What loads have taught, and its file."""

from pathlib import Path

import pytest

from supervisor.residency import store
from supervisor.residency.measured import MAX_ENTRIES, Held, Measured
from supervisor.residency.memory import Memory


def held(name: str = "a") -> Held:
    return Held(file=name, n_ctx=4096, n_cells=0, placement="whole")


def test_the_peak_of_all_loads_and_the_median_of_the_last_times_are_known() -> None:
    measured = Measured()
    assert measured.need(held()) is None
    assert measured.load_s(held()) is None
    for seconds, host, device in ((9.0, 5, 1), (1.0, 3, 2), (2.0, 4, 1)):
        peak = Memory(host_bytes=host, devices={"CUDA0": device})
        measured.loaded(held(), "print", peak, seconds)
    assert measured.need(held()) == Memory(host_bytes=5, devices={"CUDA0": 2})
    assert measured.load_s(held()) == 2.0


def test_the_oldest_entries_go_first() -> None:
    measured = Measured()
    for number in range(MAX_ENTRIES + 2):
        measured.loaded(held(str(number)), "print", Memory(host_bytes=1), 1.0)
    assert len(measured.entries()) == MAX_ENTRIES
    assert measured.need(held("1")) is None
    assert measured.need(held("2")) is not None


def test_the_file_brings_back_what_was_saved(tmp_path: Path) -> None:
    measured = Measured()
    peak = Memory(host_bytes=5, mapped_bytes=7, devices={"CUDA0": 1})
    measured.loaded(held(), "print", peak, 1.5)
    path = tmp_path / "needs" / "needs.json"
    store.save(path, measured)
    store.save(path, measured)
    assert store.load(path).entries() == measured.entries()
    assert [one.name for one in path.parent.iterdir()] == ["needs.json"]
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", [b"", b"{", b'{"version": 9, "entries": []}', b"\xff\xfe"])
def test_a_file_that_is_not_valid_is_learnt_anew(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "needs.json"
    path.write_bytes(text)
    assert store.load(path).entries() == ()


def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    assert store.load(tmp_path / "absent").entries() == ()
