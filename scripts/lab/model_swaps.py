"""From a request to its first token, of a model that is not loaded: gpufc and llama-server.

    python -m scripts.lab.model_swaps A.gguf B.gguf C.gguf --llama-server PROGRAM

Serves the same folder with both, one after the other, in turns, with as many KV cells and slots.
Two measurements:

- *unloaded*: memory for two, requests to the three models in a ring, so that each one is a load;
- *swap*: memory for one, clients that stream from one model without a pause, and then a request to
  another one. Streams of the first that end without `[DONE]` or with an error are counted.

gpufc's limit of host memory is what the models take here, measured beforehand: one or two of them
and half of a third one. llama-server has `--models-max`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp

from tests import machine, results

START_S = 60.0
REQUEST_S = 30.0
"""A request that has no token by then is broken off."""
COLUMNS = ("server", "what", "request to first token", "broken", "broken of the model before")
PROMPT = "Write three sentences about the sea."


class Outcome:
    """The answers to one server."""

    def __init__(self) -> None:
        self.first_s: list[float] = []
        self.broken: list[str] = []
        self.n_streams = 0


async def ask(
    session: aiohttp.ClientSession, url: str, model: str, n_tokens: int
) -> tuple[float, str]:
    """The seconds to the first token, and what broke; empty if it ended as it should."""
    body = {
        "model": model,
        "stream": True,
        "max_tokens": n_tokens,
        "messages": [{"role": "user", "content": PROMPT}],
    }
    began, first_s, ended = time.monotonic(), 0.0, False
    try:
        async with session.post(f"{url}/v1/chat/completions", json=body) as response:
            if response.status != 200:
                return 0.0, f"status {response.status}: {(await response.text())[:120]}"
            async for line in response.content:
                if not line.startswith(b"data: "):
                    continue
                data = line[6:].strip()
                if data == b"[DONE]":
                    ended = True
                    continue
                chunk = json.loads(data)
                if "error" in chunk:
                    return first_s, f"error: {chunk['error']}"[:160]
                if not first_s and chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                    first_s = time.monotonic() - began
    except (aiohttp.ClientError, TimeoutError, ValueError) as err:
        return first_s, f"{type(err).__name__}: {err}"[:160]
    return first_s, "" if ended else "ended without [DONE]"


def started(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)


@contextlib.asynccontextmanager
async def serving(command: Sequence[str], port: int, log: Path) -> AsyncIterator[str]:
    url = f"http://127.0.0.1:{port}"
    process = started(command, log)
    try:
        deadline = time.monotonic() + START_S
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < deadline and process.poll() is None:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{url}/v1/models") as response:
                        if response.status == 200:
                            break
                await asyncio.sleep(0.05)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, 20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def command_of(
    server: str, options: argparse.Namespace, folder: Path, n_models: int, port: int
) -> list[str]:
    if server == "llama-server":
        return [
            *(options.llama_server, "--models-dir", str(folder), "--models-max", str(n_models)),
            *("--host", "127.0.0.1", "--port", str(port), "--ctx-size", str(4 * options.n_ctx)),
            *("--parallel", "4"),
        ]
    config = folder.parent / f"gpufc-{n_models}.toml"
    limit = f"memory_limit_bytes = {options.limits[n_models]}\n" if options.limits else ""
    config.write_text(
        f'models_dir = "{folder}"\n{limit}n_ctx = {options.n_ctx}\n'
        f"kv_cells = {4 * options.n_ctx}\nmax_concurrent_requests = 4\n{options.extra}\n"
    )
    return [
        *(sys.executable, "-m", "supervisor.cli", "start", "--config", str(config)),
        *("--port", str(port), "--runtime-dir", str(folder.parent / f"run-{n_models}")),
    ]


async def measured(options: argparse.Namespace, folder: Path) -> dict[int, int]:
    """gpufc's limit of memory for so many models, by what each one takes."""
    port, models = free_port(), [Path(path).stem for path in options.models]
    command = command_of("gpufc", options, folder, len(models), port)
    async with (
        serving(command, port, Path(options.log)) as url,
        aiohttp.ClientSession() as session,
    ):
        for model in models:
            _, broken = await ask(session, url, model, 2)
            if broken:
                raise SystemExit(f"{model}: {broken}")
        async with session.get(f"{url}/stats") as response:
            rows = (await response.json())["models"]
    needs = sorted(row["host_bytes"] + row["mapped_bytes"] for row in rows)
    return {n: sum(needs[-n:]) + needs[0] // 2 for n in (1, 2)}


async def unloaded(url: str, models: Sequence[str], rounds: int, outcome: Outcome) -> None:
    timeout = aiohttp.ClientTimeout(total=REQUEST_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for _ in range(rounds):
            for model in models:
                await note(outcome, session, url, model, 4)


async def note(
    outcome: Outcome, session: aiohttp.ClientSession, url: str, model: str, n_tokens: int
) -> None:
    first_s, broken = await ask(session, url, model, n_tokens)
    outcome.n_streams += 1
    if broken:
        outcome.broken.append(broken)
    else:
        outcome.first_s.append(first_s)


async def swaps(url: str, models: Sequence[str], rounds: int, outcome: Outcome) -> Outcome:
    """Returns the streams of the clients that were there before."""
    timeout = aiohttp.ClientTimeout(total=REQUEST_S)
    others = Outcome()
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for no in range(rounds):
            old, new = models[no % 2], models[(no + 1) % 2]
            is_over = asyncio.Event()

            async def stream(model: str, is_over: asyncio.Event = is_over) -> None:
                while not is_over.is_set():
                    await note(others, session, url, model, 48)

            await note(Outcome(), session, url, old, 2)
            clients = [asyncio.create_task(stream(old)) for _ in range(3)]
            await asyncio.sleep(3.0)
            await note(outcome, session, url, new, 8)
            is_over.set()
            await asyncio.gather(*clients)
    return others


def told(server: str, what: str, outcome: Outcome, others: Outcome | None) -> list[str]:
    times = sorted(outcome.first_s)
    shown = "none"
    if times:
        shown = f"{statistics.median(times):.2f} s ({times[0]:.2f} to {times[-1]:.2f})"
    broken = f"{len(outcome.broken)} of {outcome.n_streams}"
    before = f"{len(others.broken)} of {others.n_streams}" if others else ""
    return [server, what, shown, broken, before]


async def run(options: argparse.Namespace) -> None:
    found: dict[tuple[str, str], tuple[Outcome, Outcome]] = {}
    servers = ["gpufc"] if options.only_gpufc else ["llama-server", "gpufc"]
    servers = ["llama-server"] if options.only_peer else servers
    with tempfile.TemporaryDirectory(prefix="sw", dir="/tmp") as name:
        folder = Path(name) / "models"
        folder.mkdir()
        for path in options.models:
            shutil.copy(path, folder / Path(path).name)
        models = [Path(path).stem for path in options.models]
        conditions = machine.conditions()
        options.limits = {}
        if "gpufc" in servers:
            options.limits = await measured(options, folder)
        for turn in range(options.turns):
            for server in servers:
                for what, n_models in (("unloaded", 2), ("swap", 1)):
                    outcome, others = found.setdefault((server, what), (Outcome(), Outcome()))
                    port = free_port()
                    command = command_of(server, options, folder, n_models, port)
                    async with serving(command, port, Path(options.log)) as url:
                        if what == "unloaded":
                            await unloaded(url, models, options.rounds, outcome)
                        else:
                            more = await swaps(url, models, options.swap_rounds, outcome)
                            others.broken += more.broken
                            others.n_streams += more.n_streams
                    print(f"turn {turn} {server} {what}: {outcome.first_s}", file=sys.stderr)
                    for text in {*outcome.broken, *others.broken}:
                        print(f"    {text}", file=sys.stderr)
    rows = [
        told(server, what, outcome, others if what == "swap" else None)
        for (server, what), (outcome, others) in sorted(found.items())
    ]
    for row in (COLUMNS, *rows):
        print(f"| {' | '.join(row)} |")
    if options.results is not None:
        where = results.Run(
            title="first token of a model that is not loaded, and of a swap under load",
            command=results.spelled("python -m scripts.lab.model_swaps", sys.argv[1:]),
            conditions=conditions,
        )
        results.append(options.results, where, results.Table(COLUMNS, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs=3, metavar="GGUF")
    parser.add_argument("--llama-server", default="llama-server")
    parser.add_argument("--n-ctx", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--swap-rounds", type=int, default=4)
    parser.add_argument("--results", type=Path, metavar="FILE", help="append the table to it")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--extra", default="", help="more lines of gpufc's configuration")
    parser.add_argument("--log", default="/dev/null")
    parser.add_argument("--only-gpufc", action="store_true")
    parser.add_argument("--only-peer", action="store_true")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
