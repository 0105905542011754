"""The threads of passes after a time without passes, in which other processes computed."""

from typing import Any

import pytest

from engine_worker import host
from engine_worker.backend.llama.team import IDLE_SHARE, SharingTeam


class Bindings:
    """Notes the numbers of threads that are set."""

    def __init__(self) -> None:
        self.set: list[int] = []

    def llama_set_n_threads(self, _context: Any, n_threads: int, _n_batch: int) -> None:
        self.set.append(n_threads)

    def llama_decode(self, _context: Any, _batch: Any) -> int:
        return 0


WINDOW_S = 2.0


class Use:
    """Others used two cores in each window."""

    def __init__(self, run: bool) -> None:
        self._run = run

    def by_others(self, _now: float) -> tuple[float, float]:
        return 2.0, WINDOW_S

    def others_run(self) -> bool:
        return self._run


def team(monkeypatch: pytest.MonkeyPatch, *, run: bool) -> tuple[SharingTeam, Bindings]:
    bindings: Any = Bindings()
    monkeypatch.setattr(host, "CoreUse", lambda: Use(run))
    monkeypatch.setattr(host, "logical_cores", lambda: 2)
    return SharingTeam(bindings, 2, 2), bindings


def after(sharing: SharingTeam, idle_s: float) -> int:
    """The threads of a pass after so long a time without one."""
    sharing._ended -= idle_s
    sharing.decode(None, None, 128)
    return sharing.n_threads


def test_the_context_has_the_number_of_each_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    bindings: Any = Bindings()
    monkeypatch.setattr(host.CoreUse, "by_others", lambda _self, _now: None)
    monkeypatch.setattr(host, "logical_cores", lambda: 16)
    sharing = SharingTeam(bindings, 15, 16)
    for n_tokens in (8, 1, 512, 512, 8):
        sharing.decode(None, None, n_tokens)
    assert bindings.set == [15, 16, 15]
    assert sharing.n_threads == 15


def test_processes_that_have_ended_leave_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    sharing, bindings = team(monkeypatch, run=False)
    assert after(sharing, WINDOW_S) == 2
    assert bindings.set == []


def test_processes_that_still_run_are_given_way_to(monkeypatch: pytest.MonkeyPatch) -> None:
    sharing, bindings = team(monkeypatch, run=True)
    assert after(sharing, WINDOW_S) == 1
    assert bindings.set == [1]


def test_beside_passes_each_window_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    sharing, _ = team(monkeypatch, run=False)
    assert after(sharing, 0.9 * IDLE_SHARE * WINDOW_S) == 1
    assert after(sharing, WINDOW_S) == 2
