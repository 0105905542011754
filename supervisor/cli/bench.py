"""`bench`: measures a server from a client's side."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options

if TYPE_CHECKING:
    from supervisor.bench.client import Target
    from supervisor.bench.outcome import Outcome
    from supervisor.bench.runner import Bounds, Run
    from supervisor.bench.workload import Workload

DURATION_S = 30.0

_COUNT = click.IntRange(1)


@click.command(
    "bench",
    short_help="Measure the running front, or another server.",
    epilog="Exit codes: 0 something was measured (failed requests are shown), 2 bad usage, "
    "4 no request succeeded, or nothing runs.",
)
@click.option("--url", metavar="URL", help="any OpenAI-compatible server [default: the own front]")
@click.option("--model", metavar="NAME", help="model to ask for [default: the first one listed]")
@click.option(
    "--streams", type=_COUNT, default=8, metavar="N",
    help="clients, each with one request at a time [default: 8]",
)  # fmt: skip
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), metavar="R",
    help="requests per second that arrive at random, however many run [default: closed loop]",
)  # fmt: skip
@click.option(
    "--requests", type=_COUNT, metavar="N", help="begin so many [default: until --duration]"
)
@click.option(
    "--duration", "duration_s", type=click.FloatRange(0, min_open=True), metavar="S",
    help="begin none after so many seconds [default: 30 without --requests]",
)  # fmt: skip
@click.option(
    "--warm-up", type=click.IntRange(0), default=2, metavar="N",
    help="short requests before, which do not count [default: 2]",
)  # fmt: skip
@click.option(
    "--prompt-tokens", type=_COUNT, default=128, metavar="N",
    help="length of each prompt in common words, about a token each [default: 128]",
)  # fmt: skip
@click.option(
    "--output-tokens", type=_COUNT, default=128, metavar="N",
    help="length of each answer; the end of text is ignored [default: 128]",
)  # fmt: skip
@click.option(
    "--shared-prefix", type=click.IntRange(0), default=0, metavar="N",
    help="words before each prompt, the same for all [default: 0]",
)  # fmt: skip
@click.option(
    "--turns", type=_COUNT, default=1, metavar="N",
    help="requests of one conversation, each with all before it [default: 1]",
)  # fmt: skip
@click.option(
    "--varied", is_flag=True, help="answers of a quarter to seven quarters of that length"
)
@click.option("--copying", is_flag=True, help="prompts that ask for their own code again, edited")
@click.option(
    "--api", type=click.Choice(["chat", "completions"]), default="chat",
    help="route to use [default: chat]",
)  # fmt: skip
@click.option("--strict", is_flag=True, help="send OpenAI's own fields only; answers may end early")
@click.option("--greedy", is_flag=True, help="temperature 0 rather than 0.8")
@click.option(
    "--seed", type=int, default=1, metavar="N",
    help="of prompts and arrivals; a server may have cached those of a seed it met [default: 1]",
)  # fmt: skip
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path),
              metavar="FILE", help="write all figures there [default: none]")  # fmt: skip
@click.option("--plot", "plot_file", type=click.Path(dir_okay=False, path_type=Path),
              metavar="FILE", help="draw latencies there, as SVG [default: none]")  # fmt: skip
@setting_options(["runtime_dir"])
def command(json_file: Path | None, plot_file: Path | None, **options: Any) -> None:
    """Measure the running front, or any server with OpenAI's API.

    Shows time to first token, time between tokens, throughput and errors. Every prompt is new to
    the server unless an earlier run had the same --seed.

    If the server needs a key, set it in the variable GPUFC_API_KEY.
    """
    import asyncio

    import msgspec

    from supervisor.bench import report
    from supervisor.bench.client import named
    from supervisor.bench.figures import figures
    from supervisor.bench.runner import Bounds
    from supervisor.bench.workload import Workload
    from supervisor.control.client import NotRunning

    workload = msgspec.convert(_fields(Workload, options), Workload)
    if options["requests"] is None and options["duration_s"] is None:
        options["duration_s"] = DURATION_S
    bounds = msgspec.convert(_fields(Bounds, options), Bounds)
    target = asyncio.run(named(_target(options)))
    run = _measure(target, workload, bounds)
    found = figures(run.outcomes)
    click.echo("\n".join(report.lines(found)))
    for line in found.said:
        click.echo(click.style(line, fg="red"), err=True)
    if json_file is not None:
        report.write(json_file, report.document(found, target, workload, bounds, run))
    if plot_file is not None:
        plot_file.write_text(_plot(target.url, run))
    if not found.succeeded:
        raise NotRunning(f"no request to {target.endpoint} succeeded; the errors above say why")


def _fields(kind: Any, options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in kind.__struct_fields__ if name in options}


def _target(options: dict[str, Any]) -> "Target":
    import os

    from supervisor.bench.client import Api, Target

    return Target(
        url=options["url"] or _own_front(options["runtime_dir"]),
        model=options["model"],
        api=Api(options["api"]),
        key=os.environ.get("GPUFC_API_KEY"),
        strict=options["strict"],
    )


def _own_front(runtime_dir: str | None) -> str:
    from supervisor.control.client import ControlClient, NotRunning

    folder = find(runtime_dir)
    addresses = ControlClient(folder.control_socket).status()["front"]["addresses"]
    if not addresses:
        raise NotRunning(f"the front has no address yet; `{folder.command('status')}` shows why")
    return str(addresses[0])


def _measure(target: "Target", workload: "Workload", bounds: "Bounds") -> "Run":
    import time

    import uvloop

    from supervisor.bench.runner import run
    from supervisor.cli.terminal import Progress

    progress = Progress("measuring")
    began = time.monotonic()
    n_ended = 0

    def on_end(_: "Outcome") -> None:
        nonlocal n_ended
        n_ended += 1
        fractions = [
            (time.monotonic() - began) / bounds.duration_s if bounds.duration_s else 0.0,
            n_ended / (bounds.requests * workload.turns) if bounds.requests else 0.0,
        ]
        progress.fraction(max(fractions))

    try:
        return uvloop.run(run(target, workload, bounds, on_end))
    finally:
        progress.end()


def _plot(title: str, run: "Run") -> str:
    from supervisor.bench.figures import gaps, times_to_first_token
    from supervisor.bench.plot import percentile_curves

    good = [outcome for outcome in run.outcomes if outcome.failure is None]
    return percentile_curves(
        title,
        {
            "time to first token": {"": times_to_first_token(good)},
            "between tokens": {"": [gap for outcome in good for gap in gaps(outcome)]},
            "whole request": {"": [o.ended_at - o.began_at for o in good]},
        },
    )
