"""Runs that do not go as they should: a raise keeps the figures, a slow return is no miss."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos import real
from tests.chaos.cell import IDLE_S, Play
from tests.chaos.rig import PATIENCE_S, Missed


async def test_a_run_that_raises_loses_no_figures_of_the_runs_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @asynccontextmanager
    async def no_rig(*_: str, **__: Any) -> AsyncIterator[None]:
        yield

    async def rate(_: None) -> float:
        return 321.0

    async def one_run(_: None, __: Any, outcome: real.Outcome, **___: Any) -> None:
        if outcome.n_kills:
            raise ConnectionError("the front is gone")
        outcome.n_kills, outcome.n_streams = 3, 16

    monkeypatch.setattr(real, "rig", no_rig)
    monkeypatch.setattr(real, "_prefill_rate", rate)
    monkeypatch.setattr(real, "one_run", one_run)
    with pytest.raises(ConnectionError):
        await real.run(Path("model.gguf"), 2, 0)
    said = capsys.readouterr().out
    assert "  kills: 3\n" in said
    assert "streams complete: 16 of 16\n" in said


async def test_a_service_that_is_not_at_rest_in_time_is_a_failure_and_not_a_miss() -> None:
    async def until_idle(timeout_s: float = PATIENCE_S) -> None:
        raise Missed(f"not within {timeout_s:.0f} s: idle and ready")

    play = Play.__new__(Play)
    play.one = SimpleNamespace(until_idle=until_idle)  # type: ignore[assignment]
    assert await play.run() == [f"before the fault: not within {IDLE_S:.0f} s: idle and ready"]
