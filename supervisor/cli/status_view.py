"""The control socket's status document as lines of text. Pure."""

import time
from collections import Counter
from typing import Any

import click

from gpufc.printable import printable
from supervisor.cli.terminal import amount, duration, table

Document = dict[str, Any]

_COLOURS = {
    "ok": "green", "ready": "green", "online": "green",
    "connecting": "yellow", "login": "yellow", "closing": "yellow", "waiting": "yellow",
    "loading": "yellow", "trying": "yellow", "starting": "yellow", "restarting": "yellow",
    "draining": "yellow", "stopping": "yellow", "backoff": "yellow",
    "failed": "red", "hung": "red",
    "joined": "green", "shunned": "yellow", "drained": "yellow", "placing": "yellow", "lost": "red",
}  # fmt: skip

_WIDE = 160

_OPTIONAL = ("epoch", "threads", "kv cells", "context", "restarts", "memory", "model", "tokens/s")
"""Columns that are dropped on a narrow terminal, in this order."""


def render(document: Document, width: int) -> list[str]:
    """Front, workers, devices, in lines of at most `width` characters (colours not counted)."""
    latency = _latency(document.get("latency") or {}, width)
    models = _models(document.get("models") or [])
    lines = [*_front(document), *models, *latency, "", *_workers(document, width)]
    if hosts := host_lines(document.get("hosts") or [], width):
        lines += ["", *hosts]
    machine = [*_host(document.get("host")), *_devices(document), *_sources(document)]
    return [*lines, "", *machine, *_alarms(document)]


def _front(document: Document) -> list[str]:
    front = document["front"]
    condition = front["condition"]
    lines = [
        f"gpufc {document['version']}  {_state(condition['status'])}  "
        f"{'  '.join(front['addresses'])}  pid {front['pid']}  "
        f"up {duration(document['uptime_s'])}"
    ]
    if condition["status"] != "ok" and condition["detail"]:
        lines.append(f"  {condition['detail']}")
    requests, tokens = document["requests"], document["tokens"]
    counts = [f"{requests['running']} running", f"{requests['waiting']} waiting"]
    for name in ("succeeded", "failed", "cancelled", "rejected"):
        counts.append(f"{requests.get(f'{name}_total', 0):,} {name}")
    lines.append(f"requests  {', '.join(counts)}")
    lines.append(
        f"tokens    {tokens['generated_per_second']:.1f}/s,"
        f" {tokens['generated_total']:,} generated, {tokens['prompt_total']:,} of prompts"
        f" ({tokens['prompt_cached_total']:,} cached)"
    )
    network = network_lines(document.get("network") or {})
    durable = _durable(document.get("durable") or {}) + _cells(document.get("cells") or {})
    return [*lines, *durable, *network, *_plugins(document.get("plugins") or [])]


def _plugins(rows: list[Document]) -> list[str]:
    """The plugins together, then a line for each that has failed."""
    if not rows:
        return []
    n_ready = sum(row["is_ready"] for row in rows)
    n_calls = sum(row["counts"]["calls"] for row in rows)
    line = f"plugins   {n_ready} of {len(rows)} ready, {n_calls:,} calls"
    troubles = ((row["name"], _trouble(row)) for row in rows)
    return [line, *(printable(f"  {name}: {trouble}") for name, trouble in troubles if trouble)]


def _trouble(row: Document) -> str:
    """What a plugin has failed at; empty for one that has not."""
    counts, policy = row["counts"], row["policy"] or {}
    facts = [
        "" if row["is_ready"] else f"not ready ({row['detail'] or 'starting'})",
        "not asked for a while" if policy.get("is_off") else "",
        f"{counts['failures']:,} failed calls" if counts["failures"] else "",
        f"{policy['failed']:,} failed choices" if policy.get("failed") else "",
        f"started again {counts['restarts']:,} times" if counts["restarts"] else "",
    ]
    return ", ".join(filter(None, facts))


def _models(models: list[Document]) -> list[str]:
    """How many of several models are in which state."""
    if len(models) < 2:
        return []
    counts = Counter(row["state"] for row in models)
    return [f"models    {', '.join(f'{n} {state}' for state, n in counts.items())}"]


def network_lines(network: Document) -> list[str]:
    """The network that the front has joined, or wants to join."""
    if not network:
        return []
    line = f"network   {_state(network['phase'])}  {network['server']} as {network['client_id']}"
    if network["phase"] != "online":
        reason = network["detail"]
        return [line, *([f"  {reason}"] if reason else [])]
    beat = network["last_heartbeat_at"]
    beaten = f"{duration(max(0.0, time.time() - beat))} ago" if beat else "none yet"
    tasks, counts = network["tasks"], []
    for name in ("running", "waiting"):
        counts.append(f"{network[f'tasks_{name}']} {name}")
    for name in ("succeeded", "failed", "cancelled", "refused", "lost"):
        if tasks[name]:
            counts.append(f"{tasks[name]:,} {name}")
    return [
        f"{line}, heartbeat {beaten}",
        f"  tasks {', '.join(counts)}; {network['connections']} connections",
    ]


def host_lines(rows: list[Document], width: int = _WIDE) -> list[str]:
    """A table of the machines that may run workers, then a line for each that gets none."""
    if not rows:
        return []
    columns = [
        {
            "machine": row["machine"],
            "state": row["state"],
            "workers": f"{len(row['workers'])} of {row['max_workers']}",
            "cores": str(row["cores"] or "-"),
            "memory": amount(row["memory_bytes"]) if row["memory_bytes"] else "-",
            "devices": _counted(row["devices"]) or "-",
            "heard": _heard(row["heard_at"]),
            "losses": str(row["n_losses"]),
        }
        for row in rows
    ]
    lines = table(columns, width, ("cores", "memory", "losses", "devices"))
    coloured = [_coloured(line, row["state"]) for line, row in zip(lines[1:], rows, strict=True)]
    notes = [f"  {row['machine']}: {printable(row['detail'])}" for row in rows if row["detail"]]
    return [lines[0], *coloured, *notes]


def _counted(devices: list[str]) -> str:
    """The devices of a machine, equal ones counted."""
    return ", ".join(name if n == 1 else f"{n} × {name}" for name, n in Counter(devices).items())


def _heard(at: float | None) -> str:
    return f"{duration(max(0.0, time.time() - at))} ago" if at else "-"


def _durable(durable: Document) -> list[str]:
    """The durable requests, if there are any."""
    running, finished = durable.get("running", 0), durable.get("finished", 0)
    if not running + finished:
        return []
    unread = f" ({durable['abandoned']} without a client)" if durable.get("abandoned") else ""
    kept = f"{finished} finished and kept, {amount(durable['bytes'])}"
    return [f"durable   {running} running or waiting{unread}, {kept}"]


def _cells(cells: Document) -> list[str]:
    """The fronts that share durable requests, if there are any."""
    if not cells:
        return []
    if not cells["connected"] or cells["state"] != "owner":
        return ["cells     NATS does not answer: durable requests run in this front only"]
    orphans = f", {cells['orphans']} of dead fronts wait" if cells["orphans"] else ""
    taken = cells["taken_over_total"]
    return [f"cells     {cells['others']} other fronts, {taken:,} requests taken over{orphans}"]


def _latency(latency: Document, width: int) -> list[str]:
    """Join as many figures as fit in one line."""
    words = {
        "time_to_first_token_seconds": "first token",
        "inter_token_seconds": "between tokens",
        "request_seconds": "request",
    }
    parts = []
    for key, word in words.items():
        found = latency.get(key) or {}
        if found.get("p50") is not None and found.get("p99") is not None:
            parts.append(f"{word} {found['p50'] * 1000:.0f} ms (p99 {found['p99'] * 1000:.0f})")
    while len(line := f"latency   {', '.join(parts)}") > width and len(parts) > 1:
        parts.pop()
    return [line] if parts else []


def _workers(document: Document, width: int) -> list[str]:
    rows = [_worker(row) for row in document["workers"]]
    if not any(row.get("machine") for row in document["workers"]):
        for row in rows:
            del row["machine"]
    if not rows:
        return ["no workers"]
    lines = table(rows, width, _OPTIONAL)
    return [
        lines[0],
        *(_coloured(line, row["state"]) for line, row in zip(lines[1:], rows, strict=True)),
        *_confinement(document["workers"]),
    ]


def _confinement(workers: list[Document]) -> list[str]:
    """What holds all workers, and what some of them lack."""
    found = [row["confined"] for row in workers if row.get("confined")]
    if not found:
        return []
    missing = sorted({part for one in found for part in one["missing"]})
    held = [part for part in found[0]["in_force"] if part not in missing]
    lacks = f"; not: {', '.join(missing)}" if missing else ""
    return [f"confined  {', '.join(held)}{lacks}"]


def _worker(row: Document) -> dict[str, str]:
    state = row["state"]
    if state == "loading" and row.get("loading_fraction"):
        state = f"loading {row['loading_fraction']:.0%}"
    total = row.get("kv_cells_total") or 0
    return {
        "worker": row["name"],
        "machine": row.get("machine") or ("-" if row["state"] == "placing" else "here"),
        "state": state,
        "model": row["model"],
        "pid": str(row["pid"] or "-"),
        "epoch": str(row["epoch"]),
        "restarts": str(row["restarts"]),
        "running": str(row.get("sequences_running", 0)),
        "context": f"{row['n_ctx']:,}" if row.get("n_ctx") else "-",
        "kv cells": f"{row.get('kv_cells_used', 0):,} of {total:,}" if total else "-",
        "threads": str(row.get("n_threads") or "-"),
        "memory": amount(row["rss_bytes"]) if row.get("rss_bytes") else "-",
        "tokens/s": f"{row.get('tokens_per_second') or 0.0:.1f}",
        "last exit": _last_exit(row.get("last_exit")),
    }


def _last_exit(last: Document | None) -> str:
    if not last:
        return "-"
    how = f"signal {last['signal']}" if last.get("signal") else ""
    if last.get("code") is not None:
        how = f"code {last['code']}"
    ago = f", {duration(max(0.0, time.time() - last['at']))} ago" if last.get("at") else ""
    return f"{last['reason'].replace('_', ' ')}{f' ({how})' if how else ''}{ago}"


def _host(host: Document | None) -> list[str]:
    if not host or not host.get("memory_total_bytes"):
        return []
    total = host["memory_total_bytes"]
    used = total - host["memory_available_bytes"]
    limit = " (limit of the container)" if host.get("memory_limit_bytes") == total else ""
    parts = [
        f"CPU {host['cpu_percent']:.0f} %",
        f"memory {amount(used)} of {amount(total)}{limit}",
        f"disk {amount(host.get('disk_free_bytes', 0))} free",
    ]
    return [f"host      {', '.join(parts)}"]


def _devices(document: Document) -> list[str]:
    lines = []
    for device in document.get("devices") or []:
        parts = [device["name"]]
        if device["utilization"] is not None:
            parts.append(f"{device['utilization']:.0%} busy")
        if device["memory_total_bytes"]:
            used, total = device["memory_used_bytes"], device["memory_total_bytes"]
            parts.append(f"{amount(used or 0)} of {amount(total)}")
        if device["temperature_celsius"] is not None:
            parts.append(f"{device['temperature_celsius']:.0f} °C")
        if device["power_watts"] is not None:
            limit = f" of {device['power_limit_watts']:.0f}" if device["power_limit_watts"] else ""
            parts.append(f"{device['power_watts']:.0f}{limit} W")
        if device.get("throttled"):
            parts.append(f"throttled: {', '.join(device['throttled'])}")
        lines.append(f"{device['kind']} {device['index']}".ljust(10) + ", ".join(parts))
    return lines + _engine_devices(document)


def _engine_devices(document: Document) -> list[str]:
    """The devices that the engine computes on, of any vendor."""
    seen: dict[str, str] = {}
    for worker in document["workers"]:
        for device in worker.get("devices") or []:
            name, description, kind, free, total = _engine_device(device)
            memory = f", {amount(free)} of {amount(total)} free" if total else ""
            seen[name] = f"{'engine'.ljust(10)}{name} ({kind}): {description}{memory}"
    return list(seen.values())


def _engine_device(device: Document | list[Any]) -> tuple[str, str, str, int, int]:
    """The fields of an `EngineDevice`, which msgspec may write as an array."""
    if isinstance(device, list):
        name, description, kind, free, total = device
        return name, description, kind, free, total
    return (
        device["name"],
        device["description"],
        device["kind"],
        device["memory_free_bytes"],
        device["memory_total_bytes"],
    )


def _sources(document: Document) -> list[str]:
    """Why figures are missing or old. An absent driver matters only where no other shows a
    device."""
    unimportant = {"ok", "absent"} if document.get("devices") else {"ok"}
    return [
        f"{source['name']}".ljust(10) + source["detail"]
        for source in document.get("sources") or []
        if source["state"] not in unimportant
    ]


def _alarms(document: Document) -> list[str]:
    return [
        click.style("alarm".ljust(10), fg="red", bold=True)
        + f"{alarm['text']} ({alarm['kind'].replace('_', ' ')}, for"
        f" {duration(max(0.0, time.time() - alarm['since']))})"
        for alarm in document.get("alarms") or []
    ]


def _state(word: str) -> str:
    return click.style(word, fg=_COLOURS.get(word), bold=True)


def _coloured(line: str, state: str) -> str:
    word = state.split()[0]
    return line.replace(f" {word}", " " + click.style(word, fg=_COLOURS.get(word)), 1)
