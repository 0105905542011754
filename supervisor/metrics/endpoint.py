"""The load of the whole front in a few sums, for a balancer that asks many times a second.

The endpoint picker of Kubernetes' inference gateway reads the first series of a name, whatever its
labels. So these have none: a label would show it the load of one model or worker only. The text is
written by hand, without a library, in microseconds.
"""

from collections.abc import Iterable

from msgspec import Struct

from supervisor.dispatch.dispatcher import Occupancy
from supervisor.fleet.port import WorkerStatus

BLOCK = 16
"""Tokens of a block, as vLLM counts its KV cache. A cell of llama.cpp holds one token."""

KV_S = 0.25
"""The KV cells in use are counted so often at most: heartbeats bring them four times a second, and
each worker is looked at."""


class Cells(Struct, frozen=True):
    """KV cells of some workers: those in use, and all."""

    used: int = 0
    n: int = 0

    @property
    def used_ratio(self) -> float:
        return self.used / self.n if self.n else 0.0


def cells_by_model(workers: Iterable[WorkerStatus]) -> dict[str, Cells]:
    """The cells of each model, over the workers that have sent figures."""
    found: dict[str, Cells] = {}
    for row in workers:
        if row.engine and row.facts:
            so_far = found.get(row.model, Cells())
            found[row.model] = Cells(
                so_far.used + row.engine.kv_cells_used, so_far.n + row.facts.kv_cells
            )
    return found


class Endpoint(Struct, frozen=True):
    """The sums over all models and workers."""

    running: int
    waiting: int
    cells: Cells

    @classmethod
    def of(cls, occupancies: Iterable[Occupancy], cells: Iterable[Cells]) -> "Endpoint":
        """Those of these models."""
        each, parts = list(occupancies), list(cells)
        return cls(
            sum(one.running for one in each),
            sum(one.waiting for one in each),
            Cells(sum(one.used for one in parts), sum(one.n for one in parts)),
        )

    def gauges(self) -> tuple[tuple[str, str, float], ...]:
        """Name, without gpufc's prefix, help and value."""
        return (
            ("endpoint_requests_running", "Sequences that run, of all models.", self.running),
            ("endpoint_requests_waiting", "Sequences that wait, of all models.", self.waiting),
            (
                *("endpoint_kv_usage_ratio", "The used part of all KV cells."),
                self.cells.used_ratio,
            ),
        )

    def text(self) -> bytes:
        """Prometheus' text: gpufc's names, and those that the picker reads from a vLLM."""
        ours = self.gauges()
        theirs = (
            ("vllm:num_requests_running", ours[0][2]),
            ("vllm:num_requests_waiting", ours[1][2]),
            ("vllm:kv_cache_usage_perc", ours[2][2]),
        )
        lines = []
        for name, value in (*((f"gpufc_{name}", value) for name, _, value in ours), *theirs):
            lines.append(f"# TYPE {name} gauge\n{name} {float(value)!r}\n")
        lines.append(
            "# TYPE vllm:cache_config_info gauge\n"
            f'vllm:cache_config_info{{block_size="{BLOCK}",'
            f'num_gpu_blocks="{self.cells.n // BLOCK}"}} 1.0\n'
        )
        return "".join(lines).encode()
