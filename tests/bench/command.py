"""`scripts/bench`: measures and reports."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import structs

from gpufc.errors import GpufcError
from supervisor.bench import report
from tests import machine
from tests.bench import aiperf, batched, front, growth, headline, markdown, table
from tests.bench import options as wanted
from tests.bench.results import Kernels, Results
from tests.bench.rounds import compare
from tests.bench.scenarios import SCENARIOS, Scenario
from tests.bench.servers import Gpufc, LlamaServer, Server, Setting
from tests.bench.side_by_side import Plan, carry_out, quick
from tests.results import Run, Table, append, spelled

QUICK_N_CTX = 512


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report. Returns the exit code: 2 bad usage, 3 a server did not start, 130
    interrupted."""
    words = sys.argv[1:] if arguments is None else arguments
    options = wanted.parser().parse_args(words)
    options.command = spelled("scripts/bench", words)
    try:
        return _run(options)
    except wanted.WrongOption as err:
        print(f"error: {err.says}", file=sys.stderr)
        return 2
    except GpufcError as err:
        print(f"error: {err}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("broken off", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    if options.list:
        _say(*(f"{scenario.name:12}{scenario.says}" for scenario in SCENARIOS.values()))
        _say(
            f"{wanted.BATCHED:12}llama.cpp's own benchmark, for as many streams as the others have"
        )
    elif options.headline:
        headline.write()
    elif options.front:
        _front(options)
    elif options.growth:
        _growth(options)
    else:
        _compare(options)
    return 0


def _say(*lines: str) -> None:
    print("\n".join(lines), flush=True)


def _compare(options: argparse.Namespace) -> None:
    """Compare servers. Looks for every program and key before the first server starts."""
    chosen = [name for name in options.scenario or wanted.DEFAULT if name != wanted.BATCHED]
    setting = wanted.setting(options)
    if options.quick:
        setting = structs.replace(setting, n_ctx=min(setting.n_ctx, QUICK_N_CTX))
    played = [(SCENARIOS[name], wanted.servers(options, SCENARIOS[name])) for name in chosen]
    wanted.check_generator(options, [scenario for scenario, _ in played])
    with_kernels = wanted.BATCHED in (options.scenario or ())
    kernels = wanted.batched_bench(options) if with_kernels else None
    conditions = machine.conditions() | _peer(servers for _, servers in played)
    _say(*_conditions(conditions, setting))
    results = Results(conditions, {name: str(value) for name, value in vars(options).items()})
    try:
        for scenario, servers in played:
            _play(options, setting, scenario, servers, results)
            results.write(options.json, options.plot)
        if kernels is not None:
            for scenario in [scenario for scenario, _ in played if scenario.is_plain]:
                measured = batched.measure(kernels, setting, _sized(options, scenario))
                found = results.add_kernels(scenario.name, scenario.bounds.streams, measured)
                _say(_kernels(found))
            results.write(options.json, options.plot)
    except KeyboardInterrupt:
        _publish_compared(options, setting, results, conditions, ", broken off")
        raise
    _publish_compared(options, setting, results, conditions)


def _publish_compared(
    options: argparse.Namespace,
    setting: Setting,
    results: Results,
    conditions: dict[str, Any],
    ending: str = "",
) -> None:
    """Add the scenarios that were finished to the results file."""
    document = results.document()
    names = dict.fromkeys(row["server"] for row in document["rows"])
    if names:
        title = f"{' and '.join(names)} on {setting.model.name}, {setting.threads}"
        _publish(options, title + ending, markdown.comparison(document), conditions)


def _publish(
    options: argparse.Namespace, title: str, table: Table, conditions: dict[str, Any]
) -> None:
    """Add a run to the results file, if one is named."""
    if options.results is not None:
        append(
            options.results, Run(title=title, command=options.command, conditions=conditions), table
        )


def _peer(players: Iterable[Sequence[Server]]) -> dict[str, str | None]:
    """The version of the compared llama-server, if there is one."""
    peers = (s for servers in players for s in servers if isinstance(s, LlamaServer))
    peer = next(peers, None)
    return {"llama-server": machine.program_version(peer.program) if peer else None}


def _play(
    options: argparse.Namespace,
    setting: Setting,
    scenario: Scenario,
    servers: Sequence[Server],
    results: Results,
) -> None:
    plan = Plan(
        scenarios=(_sized(options, scenario),), setting=setting,
        rounds=1 if options.quick else options.rounds, api=options.api, seed=options.seed,
        all_loaded=options.all_loaded,
    )  # fmt: skip
    rows = carry_out(plan, servers, _say)
    names = [server.name for server in servers]
    compared = compare(rows, scenario.name, names)
    results.add(rows, compared)
    _say(*table.lines(compared, plan.scenarios, names), "")


def _sized(options: argparse.Namespace, scenario: Scenario) -> Scenario:
    sized = quick(scenario) if options.quick else scenario
    if options.aiperf is None:
        return sized
    return structs.replace(sized, play=aiperf.play(options.aiperf, wanted.setting(options).model))


def _conditions(conditions: dict[str, Any], setting: Setting) -> list[str]:
    return [
        f"{conditions['processor']}, {conditions['cores']} cores,"
        f" load {conditions['load_average']}",
        f"{setting.model.name}, {setting.threads}, {setting.n_ctx} tokens a request,"
        f" flash attention {setting.flash_attention}",
        f"gpufc {conditions['commit'] or conditions['gpufc']}, llama-cpp-python"
        f" {conditions['llama-cpp-python']}; llama-server: {conditions['llama-server']}",
        "",
    ]


def _kernels(found: Kernels) -> str:
    decoding, with_prompts = (f"{rate:,.1f} tokens/s" for rate in found.rates)
    if found.reached is not None:
        decoding += f" (gpufc reaches {found.reached.decoding:.0%})"
        with_prompts += f" ({found.reached.with_prompts:.0%})"
    return (
        f"{found.scenario}: llama-batched-bench with {found.streams} streams: {decoding} while all"
        f" decode, {with_prompts} with their prompts"
    )


def _front(options: argparse.Namespace) -> None:
    conditions = machine.conditions()
    found = front.measure(front.QUICK if options.quick else front.Size(), tls=options.tls)
    _say(*front.lines(found))
    document = {"conditions": conditions, "front": msgspec.to_builtins(found)}
    if options.json:
        report.write(options.json, document)
    title = "the front over the scripted engine" + (", over TLS" if options.tls else "")
    _publish(options, title, markdown.front(document), conditions)


def _growth(options: argparse.Namespace) -> None:
    conditions = machine.conditions()
    server, setting = front.service(slots=growth.CLIENTS)
    if options.model:
        server, setting = Gpufc(keys=wanted.own_keys(options)), wanted.setting(options)
    found = growth.measure(server, setting, options.growth, lambda n: _say(f"{n:,} requests"))
    _say(*growth.lines(found))
    document = {"conditions": conditions, "growth": msgspec.to_builtins(found)}
    if options.json:
        report.write(options.json, document)
    title = f"memory over {options.growth:,} requests"
    _publish(options, title, markdown.growth(document), conditions)
