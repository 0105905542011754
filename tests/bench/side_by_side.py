"""Servers in turn through scenarios, round after round."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import uvloop
from msgspec import Struct, structs

from supervisor.bench.client import Api, Target
from tests.bench import neighbours
from tests.bench.rounds import Row, order
from tests.bench.scenarios import Scenario
from tests.bench.servers import Server, Setting, running

Say = Callable[[str], None]

QUICK_TOKENS = 16
QUICK_PREFIX = 64


class Plan(Struct, frozen=True, kw_only=True):
    """The plan of a comparison. Each round has its own seed, so that no prompt repeats.

    With `all_loaded` the other servers are there as well, idle.
    """

    scenarios: tuple[Scenario, ...]
    setting: Setting
    rounds: int
    api: Api = Api.CHAT
    seed: int = 1
    all_loaded: bool = False


def quick(scenario: Scenario) -> Scenario:
    """The smallest version of a scenario, as a smoke test."""
    workload = scenario.workload
    return structs.replace(
        scenario,
        says=f"{scenario.says}; shortened",
        workload=structs.replace(
            workload,
            output_tokens=min(workload.output_tokens, QUICK_TOKENS),
            prompt_tokens=min(workload.prompt_tokens, QUICK_TOKENS),
            shared_prefix=min(workload.shared_prefix, QUICK_PREFIX),
            turns=min(workload.turns, 2),
        ),
        bounds=structs.replace(scenario.bounds, requests=scenario.bounds.streams, warm_up=1),
    )


def carry_out(plan: Plan, servers: Sequence[Server], say: Say) -> list[Row]:
    """Run the plan. Returns all rows in order of measurement. Raises `StartError`."""
    by_name = {server.name: server for server in servers}
    rows = []
    for scenario in plan.scenarios:
        for number, name in order(list(by_name), plan.rounds):
            idle = [one for one in servers if plan.all_loaded and one.name != name]
            row = one_round(plan, scenario, by_name[name], number, idle)
            rows.append(row)
            say(f"{scenario.name} round {number + 1} {name}: {_brief(row, scenario)}")
    return rows


def one_round(
    plan: Plan, scenario: Scenario, server: Server, number: int, idle: Sequence[Server] = ()
) -> Row:
    """Start idle servers, the measured one, then its neighbours; run the scenario, end them all."""
    setting = structs.replace(plan.setting, slots=scenario.slots)
    workload = structs.replace(scenario.workload, seed=plan.seed + number)
    load = os.getloadavg()[0]
    with ExitStack() as beside:
        for other in idle:
            beside.enter_context(running(other, setting))
        alive = beside.enter_context(running(server, setting))
        beside.enter_context(neighbours.busy(scenario.neighbours))
        target = Target(url=alive.url, api=plan.api)
        before = alive.cpu_s()
        metrics, figures = uvloop.run(
            scenario.play(target, workload, scenario.bounds, setting.n_ctx)
        )
        cpu_s = alive.cpu_s() - before
        if figures.output_tokens:
            metrics["server_cpu_ms_per_token"] = cpu_s * 1000 / figures.output_tokens
        return Row(
            scenario=scenario.name,
            server=server.name,
            round=number,
            metrics=metrics,
            load_average=load,
            figures=figures,
        )


def _brief(row: Row, scenario: Scenario) -> str:
    shown = (f"{name} {row.metrics[name]:.1f}" for name in scenario.shows if name in row.metrics)
    failed = row.metrics.get("failed", 0.0)
    said = f", {failed:.0f} FAILED ({'; '.join(row.figures.said)})" if failed else ""
    return ", ".join(shown) + said
