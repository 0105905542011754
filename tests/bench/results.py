"""What a comparison has found so far: kept, and written down after each scenario."""

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from supervisor.bench import plot, report
from tests.bench.batched import Rates
from tests.bench.rounds import Comparison, Row
from tests.bench.scenarios import RATE, SCENARIOS

TITLE = "gpufc to the other server: longer is better"


class Kernels(Struct, frozen=True, kw_only=True):
    """What llama-batched-bench generates with as many streams as a scenario has, and which part of
    either rate gpufc reaches there, where that was measured."""

    scenario: str
    streams: int
    rates: Rates
    reached: Rates | None


class Results:
    """`conditions` and `options` are plain data about the run."""

    def __init__(self, conditions: dict[str, Any], options: dict[str, Any]) -> None:
        self._conditions = conditions
        self._options = options
        self._rows: list[Row] = []
        self._compared: list[Comparison] = []
        self._kernels: list[Kernels] = []

    def add(self, rows: list[Row], compared: list[Comparison]) -> None:
        """One scenario."""
        self._rows += rows
        self._compared += compared

    def add_kernels(self, scenario: str, streams: int, rates: Rates) -> Kernels:
        """What llama-batched-bench says to a scenario."""
        ours = next(
            (
                next(iter(row.medians.values()))
                for row in self._compared
                if (row.scenario, row.metric) == (scenario, RATE)
            ),
            None,
        )
        found = Kernels(
            scenario=scenario,
            streams=streams,
            rates=rates,
            reached=None if ours is None else Rates(*(ours / rate for rate in rates)),
        )
        self._kernels.append(found)
        return found

    def write(self, json: Path | None, drawing: Path | None) -> None:
        """To those files that are wanted. Raises `OSError`."""
        if json is not None:
            document = {
                "conditions": self._conditions,
                "options": self._options,
                "comparisons": self._compared,
                "rows": self._rows,
                "batched": self._kernels,
            }
            report.write(json, msgspec.to_builtins(document))
        if drawing is not None:
            drawing.write_text(plot.ratio_bars(TITLE, self._bars()))

    def _bars(self) -> dict[str, float]:
        return {
            f"{row.scenario}: {row.metric}": ratio
            for row in self._compared
            if row.metric in SCENARIOS[row.scenario].shows
            for ratio in row.ratios.values()
        }
