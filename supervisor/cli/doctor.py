"""`doctor`: says whether `start` would work, and how to repair what would stop it."""

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from gpufc.errors import ConfigError, GpufcError
from supervisor.cli.errors import USAGE
from supervisor.cli.options import config_option, resolve, setting_options

if TYPE_CHECKING:
    from gpufc.config import Config, ModelConfig, ServerConfig
    from gpufc.settings import Settings
    from supervisor.cli.findings import Finding
    from supervisor.cli.preflight import Plan
    from supervisor.runtime_dir import RuntimeDir

PROBE_S = 60.0

LIBRARIES = {
    "aiohttp": "aiohttp",
    "uvloop": "uvloop",
    "pyzmq": "zmq",
    "msgspec": "msgspec",
    "psutil": "psutil",
    "jinja2": "jinja2",
    "llama-cpp-python": "llama_cpp",
}

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "bad": ("BAD ", "red")}


@click.command("doctor", short_help="Say whether `start` would work, and what to do if not.")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@config_option
@setting_options()
def command(as_json: bool, config_file: str | None, **flags: Any) -> None:
    """Say whether `start` would work with these options, and what to do if not.

    Takes the same options as `start` and serves nothing. The exit code is 0 if `start` would work
    or a front already runs here, 2 for a wrong configuration, 3 for any other obstacle.
    """
    import msgspec

    from supervisor.cli import findings

    settings = resolve(flags, config_file)
    found = []
    for finding in examine(settings):
        found.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(found), indent=2))
    codes = [finding.code for finding in found if finding.level == "bad"]
    if not as_json:
        click.echo(_verdict(len(codes), any(one.subject == findings.RUNNING for one in found)))
    sys.exit(min(codes, default=0))


def examine(settings: "Settings") -> Iterator["Finding"]:
    """Yield all findings, in the order in which a start would meet them."""
    from supervisor.cli import findings, preflight
    from supervisor.runtime_dir import RuntimeDir

    yield findings.python()
    yield from findings.libraries(LIBRARIES)
    server = settings.config.server
    plan = None
    try:
        plan = preflight.check_configuration(settings)
    except ConfigError as err:
        yield findings.Finding(findings.Level.BAD, "configuration", str(err), code=USAGE)
    for note in plan.notes if plan is not None else ():
        yield findings.Finding(findings.Level.WARN, "configuration", note)
    yield from _engine(plan)
    yield from _plugins(settings.config)
    folder = RuntimeDir.find(server.runtime_dir)
    running = findings.running(_status(folder), server.port)
    if running is not None:
        yield running
    else:
        yield from _places(server)
    yield from findings.limits()
    yield findings.disk(str(folder.path))


def _status(folder: "RuntimeDir") -> dict[str, Any] | None:
    """The status of the front that runs in the folder; None without one."""
    from supervisor.control.client import ControlClient

    try:
        return ControlClient(folder.control_socket).status()
    except GpufcError:
        return None


def _places(server: "ServerConfig") -> Iterator["Finding"]:
    """Check that the folder and the port are free."""
    from supervisor.cli import findings, preflight
    from supervisor.runtime_dir import RuntimeDir

    yield findings.checked(
        "runtime folder",
        lambda: preflight.check_folder(server.runtime_dir),
        f"{RuntimeDir.find(server.runtime_dir).path} can be used, and no other front runs in it",
    )
    yield findings.checked(
        "port",
        lambda: preflight.check_port(server.host, server.port),
        f"{server.port} on {server.host} is free" if server.port else "a free one will be taken",
    )


def _engine(plan: "Plan | None") -> Iterator["Finding"]:
    from gpufc.config import ModelConfig
    from supervisor.cli import findings

    models = list(plan.config.models.values()) if plan else []
    first = models[0] if models else ModelConfig()
    report = probe(first)
    engine = report["llama_cpp"]
    yield from findings.engine(engine)
    if "confined" in report:
        yield findings.confinement(report["confined"], first)
    devices, why_none = _gpus()
    yield from findings.gpu(devices, why_none, bool(engine.get("supports_gpu")))
    for model in models:
        if model is not first:
            report = probe(model)
        facts = report.get("model")
        if facts:
            yield from findings.model(facts, model.n_ctx)
        if facts and "error" not in facts:
            limit = plan.config.fleet.device_memory_limit_bytes if plan else None
            yield from findings.memory(facts, report, model, limit)


def _plugins(config: "Config") -> Iterator["Finding"]:
    """Load each plugin in a process of its own, as `start` does."""
    if not config.plugins.plugins:
        return
    import asyncio

    from supervisor.cli import findings
    from supervisor.plugins.trial import tried

    for plugin, error in asyncio.run(tried(config)):
        yield findings.plugin(plugin.config.use, sorted(plugin.hooks), error)


def probe(model: "ModelConfig") -> dict[str, Any]:
    """The report of `engine_worker.probe`, run in its own process because it may crash or hang."""
    command = [sys.executable, "-m", "engine_worker.probe"]
    if model.model_path:
        command += [model.model_path, model.cache_type_k, model.cache_type_v]
        command += [model.chat_template] if model.chat_template else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S)
        report, *more = [json.loads(line) for line in done.stdout.splitlines()]
    except subprocess.TimeoutExpired:
        return {"llama_cpp": {"error": f"did not answer within {PROBE_S:.0f} s"}}
    except ValueError:
        return {"llama_cpp": {"error": _why_ended(done.returncode, done.stderr)}}
    for later in more:
        report["model"] |= later
    found: dict[str, Any] = report
    return found


def _why_ended(code: int, stderr: str) -> str:
    if code < 0:
        return f"crashed ({signal.Signals(-code).name}): not compiled for this processor?"
    last = stderr.strip().splitlines()[-1:] or [f"ended with code {code}"]
    return last[0]


def _gpus() -> tuple[tuple[Any, ...], str]:
    from supervisor.devices.nvml import NvmlSource
    from supervisor.devices.port import SourceAbsent

    try:
        return NvmlSource().sample(), ""
    except SourceAbsent as err:
        return (), str(err)
    except Exception as err:  # a driver may raise anything: a failing driver is a finding
        return (), f"the driver failed: {err}"


def _print(finding: "Finding") -> None:
    from supervisor.cli.terminal import columns

    mark, colour = _MARKS[finding.level]
    indent = " " * 22
    width = max(50, min(columns(), 100))
    body = textwrap.fill(
        finding.text, width, initial_indent=indent, subsequent_indent=indent,
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip
    click.echo(f"{click.style(mark, fg=colour, bold=True)}  {finding.subject:<16}{body[22:]}")
    if finding.advice:
        click.echo(f"{indent}→ {finding.advice}")


def _verdict(bad: int, is_running: bool) -> str:
    if is_running and not bad:
        return click.style("Nothing to do: it runs already.", fg="green")
    if bad:
        word = "thing keeps" if bad == 1 else "things keep"
        return click.style(f"{bad} {word} `start` from working.", fg="red")
    return click.style("`start` will work.", fg="green")
