"""The lines of `start` when the service is ready: address, model, devices, first request.

Made from the status document, so that `start` and `start --detach` print the same. The document
does not have the admin token, so that it can be passed on: the token is read from its file.
"""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from supervisor import systemd
from supervisor.cli.terminal import Progress, amount
from supervisor.runtime_dir import RuntimeDir

WIDTH = 11
MOST_NAMED = 8
"""Models that are not in memory and are named."""

_KEY = '    -H "Authorization: Bearer $GPUFC_API_KEY" \\'


def welcome(status: Mapping[str, Any], asked: Mapping[str, int], folder: RuntimeDir) -> list[str]:
    """Lines for a person at a terminal. `asked` is the configured `n_ctx` of each served name;
    `folder` is this front's."""
    command = folder.command
    addresses = status["front"]["addresses"]
    lines = [_row("address", address) for address in addresses]
    for worker in _one_of_each_model(status["workers"]):
        n_ctx = asked.get(worker["model"], worker["n_ctx"])
        lines += [_row("model", worker["model"]), _row("context", _context(worker, n_ctx))]
        if note := template_note(worker):
            lines.append(_row("template", note))
    lines += _others(status)
    if addresses and (token := _token(folder)):
        lines.append(_row("admin", f"{addresses[0].rstrip('/')}/?token={token}"))
    if status["front"].get("needs_key"):
        lines.append(_row("access", "every request needs a key, `chat` the one in GPUFC_API_KEY"))
    lines += [_row("device", text) for text in _devices(status, command)]
    return [*lines, "", "Try:", *_try(addresses[0], status, command)] if addresses else lines


def _one_of_each_model(workers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first ready worker of each model, else its first one: the others have the same values,
    or none yet."""
    found: dict[str, Mapping[str, Any]] = {}
    for worker in workers:
        first = found.setdefault(worker["model"], worker)
        if first.get("state") != "ready" and worker.get("state") == "ready":
            found[worker["model"]] = worker
    return list(found.values())


def _others(status: Mapping[str, Any]) -> list[str]:
    """A line for each model that is not in memory."""
    loaded = {worker["model"] for worker in status["workers"]}
    names = [row["name"] for row in status.get("models", ()) if row["name"] not in loaded]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    shown = ", ".join(names[:MOST_NAMED])
    return [_row("on demand", f"{shown}{more}; `models` lists them")] if names else []


def machine_awaited(status: Mapping[str, Any]) -> str:
    """The lack that the whole start waits for: no machine takes a worker. Empty while one loads."""
    workers = status["workers"]
    if not workers or any(worker["state"] != "placing" for worker in workers):
        return ""
    detail = str(status["front"]["condition"]["detail"])
    return detail if status.get("hosts") else f"{detail}; `hosts invite FILE` lets one join"


def loading_fraction(workers: Sequence[Mapping[str, Any]]) -> float:
    """Mean loading progress of all workers, 0…1."""
    done = [1.0 if w["state"] == "ready" else w.get("loading_fraction") or 0.0 for w in workers]
    return sum(done) / len(done) if done else 0.0


def show_loading(progress: Progress, status: Mapping[str, Any]) -> None:
    """How far the start is, or what it waits for."""
    if awaited := machine_awaited(status):
        progress.note(awaited)
    else:
        progress.fraction(loading_fraction(status["workers"]))


def template_note(worker: Mapping[str, Any]) -> str:
    """Why the model of this worker serves no chats; empty if it does."""
    error = worker.get("template_error")
    return f"chats are refused: {error}; `chat_template` names another one" if error else ""


def _token(folder: RuntimeDir) -> str:
    """The token of this run; empty if it cannot be read. In the journal, which other accounts may
    read, a command that prints it."""
    try:
        token = folder.admin_token.read_text().strip()
    except OSError:
        return ""
    is_logged = systemd.writes_to_journal(os.environ)
    return f"$(cat {shlex.quote(str(folder.admin_token))})" if is_logged else token


def _context(worker: Mapping[str, Any], n_ctx: int) -> str:
    less = f" ({n_ctx:,} is more than the model gives)" if worker["n_ctx"] < n_ctx else ""
    return f"{worker['n_ctx']:,} tokens for each request{less}"


def _devices(status: Mapping[str, Any], command: Callable[[str], str]) -> list[str]:
    """The engine's devices, and a line about a GPU that it does not use."""
    found: dict[str, str] = {}
    for worker in status["workers"]:
        layers = worker.get("n_gpu_layers") or 0
        for device in worker.get("devices") or []:
            name, description, kind, total = _fields(device)
            memory = f", {amount(total)}" if total else ""
            used = f", {layers} layers on it" if layers and kind in ("gpu", "igpu") else ""
            found[name] = f"{name}: {description}{memory}{used}"
    lines = list(found.values())
    gpus = [device["name"] for device in status.get("devices") or []]
    if gpus and all(not worker.get("n_gpu_layers") for worker in status["workers"]):
        lines.append(f"{gpus[0]} is not used; `{command('doctor')}` says why")
    return lines


def _fields(device: Any) -> tuple[str, str, str, int]:
    if isinstance(device, Mapping):
        return (
            device["name"], device["description"], device["kind"], device["memory_total_bytes"]
        )  # fmt: skip
    name, description, kind, _free, total = device
    return name, description, kind, total


def _try(address: str, status: Mapping[str, Any], command: Callable[[str], str]) -> Sequence[str]:
    """A first request that some model can answer."""
    workers, models = status["workers"], status.get("models", ())
    key = [_KEY] if status["front"].get("needs_key") else []
    if not workers or any(worker.get("generates") is not False for worker in workers):
        named = f'"model": "{models[0]["name"]}", ' if len(models) > 1 else ""
        body = f'{{{named}"messages": [{{"role": "user", "content": "Hello!"}}]}}'
        return [f"  {command('chat')}", *_request(f"{address}/v1/chat/completions", body, key)]
    if any(worker.get("embedding_size") for worker in workers):
        return _request(f"{address}/v1/embeddings", '{"input": "Hello!"}', key)
    body = '{"query": "greeting", "documents": ["Hello!", "Goodbye!"]}'
    return _request(f"{address}/v1/rerank", body, key)


def _request(url: str, body: str, key: Sequence[str]) -> list[str]:
    return [
        f"  curl {url} \\",
        *key,
        "    -H 'Content-Type: application/json' \\",
        f"    -d '{body}'",
        "",
    ]


def _row(name: str, text: str) -> str:
    return f"{name.ljust(WIDTH)}{text}"
