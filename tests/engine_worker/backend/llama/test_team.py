"""The threads of passes after a time without passes, in which other processes computed."""

from typing import Any

import pytest

from engine_worker import host
from engine_worker.backend.llama.team import IDLE_S, SharingTeam


class Bindings:
    """Notes the numbers of threads that are set."""

    def __init__(self) -> None:
        self.set: list[int] = []

    def llama_set_n_threads(self, _context: Any, n_threads: int, _n_batch: int) -> None:
        self.set.append(n_threads)

    def llama_decode(self, _context: Any, _batch: Any) -> int:
        return 0


class Use:
    """Others used two cores in each window, of two seconds."""

    def __init__(self, run: bool) -> None:
        self._run = run

    def by_others(self, _now: float) -> tuple[float, float]:
        return 2.0, 2.0

    def others_run(self) -> bool:
        return self._run


def team(monkeypatch: pytest.MonkeyPatch, *, run: bool) -> tuple[SharingTeam, Bindings]:
    bindings: Any = Bindings()
    monkeypatch.setattr(host, "CoreUse", lambda: Use(run))
    monkeypatch.setattr(host, "logical_cores", lambda: 2)
    return SharingTeam(bindings, 2, 2), bindings


def test_processes_that_have_ended_leave_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    sharing, bindings = team(monkeypatch, run=False)
    sharing.decode(None, None, 128)
    assert (sharing.n_threads, bindings.set) == (2, [])


def test_processes_that_still_run_are_given_way_to(monkeypatch: pytest.MonkeyPatch) -> None:
    sharing, bindings = team(monkeypatch, run=True)
    sharing.decode(None, None, 128)
    assert (sharing.n_threads, bindings.set) == (1, [1])


def test_beside_passes_each_window_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second pass follows at once: its window is not idle."""
    sharing, _ = team(monkeypatch, run=False)
    sharing.decode(None, None, 128)
    sharing.decode(None, None, 128)
    assert sharing.n_threads == 1
    now = sharing._ended + 2 * IDLE_S
    monkeypatch.setattr("engine_worker.backend.llama.team.time.monotonic", lambda: now)
    sharing.decode(None, None, 128)
    assert sharing.n_threads == 2
