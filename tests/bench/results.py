"""The results of a comparison so far. They are written to files after each scenario."""

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
    """llama-batched-bench's rates with as many streams as a scenario has. `reached` is gpufc's rate
    in that scenario as a share of each; None if gpufc was not measured there."""

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
        """Add one scenario's rounds and their comparison."""
        self._rows += rows
        self._compared += compared

    def add_kernels(self, scenario: str, streams: int, rates: Rates) -> Kernels:
        """Add llama-batched-bench's rates for a scenario."""
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

    def document(self) -> dict[str, Any]:
        """All results so far as plain data."""
        plain: dict[str, Any] = msgspec.to_builtins(
            {
                "conditions": self._conditions,
                "options": self._options,
                "comparisons": self._compared,
                "rows": self._rows,
                "batched": self._kernels,
            }
        )
        return plain

    def write(self, json: Path | None, drawing: Path | None) -> None:
        """Write the files that are wanted. Raises `OSError`."""
        if json is not None:
            report.write(json, self.document())
        if drawing is not None:
            drawing.write_text(plot.ratio_bars(TITLE, self._bars()))

    def _bars(self) -> dict[str, float]:
        return {
            f"{row.scenario}: {row.metric}": ratio
            for row in self._compared
            if row.metric in SCENARIOS[row.scenario].shows
            for ratio in row.ratios.values()
        }
