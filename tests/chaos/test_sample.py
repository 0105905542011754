"""A sample of the fault matrix, of another seed each time, and the same twice on the real model.

`scripts/chaos` runs all of it. CHAOS_SEED repeats a sample.
"""

import os
import random
import signal
from pathlib import Path

import pytest

from tests.chaos import cell, matrix, real, strike
from tests.chaos.faults import Fault
from tests.chaos.moments import Moment
from tests.chaos.rig import rig, stop_and_look, wrong_counters

N_CELLS = 14
N_STREAMS, N_TOKENS, N_KILLS = 4, 40, 2
# two engine threads wait for each other at every step, which takes long on a busy machine
ENVIRON = {"GPUFC_RESTART_LIMIT": "100", "GPUFC_N_THREADS": "1"}


def _seed() -> int:
    return int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1 << 32))


def _sample(dice: random.Random) -> list[cell.Cell]:
    """Some cells that take no longer than a restart; few setups, for each has a service."""
    quick = [c for c in matrix.cells(hangs=False) if not c.fault.pauses]
    rare = [c for c in quick if _is_dear(c)]
    often = [c for c in quick if c not in rare]
    return dice.sample(often, N_CELLS - 3) + dice.sample(rare, 3)


def _is_dear(c: cell.Cell) -> bool:
    """Whether it needs a service that few other cells can use."""
    from_inside = not c.fault.outside
    loads = from_inside and c.moment is Moment.LOADING
    return c.moment is Moment.DRAIN or loads or c.fault.limited or c.fault.unloadable


async def test_a_sample_of_the_fault_matrix_passes() -> None:
    seed = _seed()
    print(f"CHAOS_SEED={seed}")
    sample = _sample(random.Random(seed))
    results, leftovers = await matrix.play(None, sample, n_lanes=3)
    bad = [f"{result.cell.name}: {line}" for result in results for line in result.wrong]
    assert (len(results), bad, leftovers) == (N_CELLS, [], [])


@pytest.mark.parametrize("moment", [Moment.DECODE, Moment.IDLE])
async def test_a_fault_that_does_not_hit_is_no_pass(
    moment: Moment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strike, "HIT_S", 1.0)
    monkeypatch.setattr(matrix, "TRIES", 1)
    harmless = Fault("SIGCONT", number=signal.SIGCONT)
    results, _ = await matrix.play(None, [cell.Cell(harmless, moment, streamed=True)], n_lanes=1)
    assert "missed" in results[0].wrong[0]


@pytest.mark.model
async def test_real_streams_outlive_kills(model_path: Path) -> None:
    seed = _seed()
    print(f"CHAOS_SEED={seed}")
    outcome = real.Outcome()
    arguments = ("--model-path", str(model_path), "--n-ctx", "1024")
    async with rig(*arguments, environ=ENVIRON) as one:
        await real.one_run(
            one,
            random.Random(seed),
            outcome,
            n_streams=N_STREAMS,
            n_tokens=N_TOKENS,
            n_kills=N_KILLS,
        )
        outcome.wrong += wrong_counters(await one.until_idle())
        outcome.wrong += stop_and_look(one.service)
    assert outcome.wrong == []
    assert (outcome.n_streams, outcome.n_kills) == (N_STREAMS, N_KILLS)
