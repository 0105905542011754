"""`crashes list|show`: the flight recorder's records of worker deaths."""

import json
import time
from typing import TYPE_CHECKING

import click

from gpufc.printable import printable
from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options

if TYPE_CHECKING:
    from supervisor.fleet.batch_record import SequenceRecord
    from supervisor.fleet.crash_record import CrashRecord
    from supervisor.fleet.crash_store import CrashStore

MAX_SHOWN = 10
"""Sequences shown of a record; `--json` has them all."""


@click.group("crashes")
def command() -> None:
    """Show records of worker deaths.

    A record has the reason, the last engine step, the parameters of the sequences in it, the last
    lines that the worker printed, its stacks and its memory. It never has prompts or answers. The
    newest 50 records are kept.
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@setting_options(["runtime_dir"])
def list_crashes(as_json: bool, runtime_dir: str | None) -> None:
    """List the records, the newest first. Works without a running front, too."""
    import msgspec

    from supervisor.cli.terminal import columns, duration, table

    found = _store(runtime_dir).list()
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(found), indent=2))
        return
    rows = [
        {
            "id": summary.id,
            "ended": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(summary.at)),
            "reason": _reason(summary.reason, summary.signal, summary.code),
            "after": duration(summary.uptime_s),
            "model": summary.model,
        }
        for summary in found
    ]
    if rows:
        click.echo("\n".join(table(rows, columns(), ("model", "after"))))
        click.echo(f"\n`{find(runtime_dir).command('crashes show ID')}` (or `latest`) shows one.")
    else:
        click.echo("no worker has died unasked")


@command.command("show")
@click.argument("crash_id", metavar="ID", default="latest")
@click.option("--json", "as_json", is_flag=True, help="the whole record, for scripts")
@setting_options(["runtime_dir"])
def show(crash_id: str, as_json: bool, runtime_dir: str | None) -> None:
    """Show the record ID [default: latest]."""
    import msgspec

    from gpufc.errors import ConfigError, NotFound

    try:
        record = _store(runtime_dir).load(crash_id)
    except NotFound as err:
        lists = find(runtime_dir).command("crashes list")
        raise ConfigError(f"{err.message}; `{lists}` lists them") from None
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(record), indent=2))
    else:
        click.echo("\n".join(map(printable, _lines(record))))


def _store(runtime_dir: str | None) -> "CrashStore":
    from supervisor.fleet.crash_store import CrashStore

    return CrashStore(find(runtime_dir).path)


def _reason(reason: str, signal: int | None, code: int | None) -> str:
    how = f"signal {signal}" if signal else f"code {code}" if code is not None else ""
    return f"{reason} ({how})" if how else reason


def _lines(record: "CrashRecord") -> list[str]:
    from supervisor.cli.terminal import amount, duration

    ended = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.at))
    lines = [
        f"worker    {record.worker}, epoch {record.epoch}, pid {record.pid}",
        f"model     {record.model} ({record.fingerprint or 'not loaded'})",
        f"ended     {ended}, after {duration(record.uptime_s)}",
        f"reason    {_reason(record.reason, record.signal, record.code)}"
        + (f": {record.detail}" if record.detail else ""),
    ]
    if record.engine is not None:
        engine = record.engine
        lines.append(
            f"engine    {engine.phase}, step {engine.step} of {engine.step_tokens} tokens, begun"
            f" {duration(max(0.0, engine.age_s))} before; {engine.n_running} running,"
            f" {engine.n_waiting} waiting"
        )
    if record.requests:
        lines.append(f"batch     sequences {', '.join(map(str, record.requests))}")
    lines += map(_sequence, record.sequences[:MAX_SHOWN])
    if record.memory:
        peak = max(sample.rss_bytes for sample in record.memory)
        lines.append(
            f"memory    {amount(record.memory[-1].rss_bytes)} at the end, {amount(peak)} at most"
        )
    lines.append("versions  " + ", ".join(f"{name} {v}" for name, v in record.versions.items()))
    for title, part in (
        ("Python stack", record.python_stack),
        ("C stack", record.c_stack),
        ("last lines of its log", record.log[-40:]),
    ):
        if part:
            lines += ["", f"{title}:", *(f"  {line}" for line in part)]
    return lines


def _sequence(had: "SequenceRecord") -> str:
    parameters = ", ".join(f"{name} {value}" for name, value in had.parameters.items())
    limit = "" if had.max_tokens is None else f" of {had.max_tokens}"
    return (
        f"had       {had.no}: {had.request}, prompt of {had.n_prompt_tokens} tokens, "
        f"{had.n_tokens}{limit} generated before; {parameters}"
    )
