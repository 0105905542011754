"""The same killer against llama-server behind its own router, judged in the same way.

The router starts a child for each model; the child is what is killed here, as gpufc's worker is.
"""

import asyncio
import collections
import contextlib
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp
import psutil

from tests.chaos.history import History, Wrong, check, longest_silence_s, text_times
from tests.chaos.load import Ask, ask_real, begin, clients, pursue
from tests.chaos.real import N_KILLS, N_STREAMS, N_TOKENS, prompts
from tests.chaos.report import Report, reporting, spread

START_S = 60.0
NAME = "demo"


async def run(
    program: Path, model: Path, n_runs: int, seed: int, n_threads: int | None = None
) -> Report:
    """A measurement of another program: nothing that it does is a violation."""
    report = reporting(
        f"peer: llama-server, its router and one child, {n_runs} runs of {N_STREAMS} streams × "
        f"{N_TOKENS} tokens, up to {N_KILLS} kills a run, seed {seed}, engine threads "
        f"{n_threads or 'default'}"
    )
    dice = random.Random(seed)
    kinds: collections.Counter[str] = collections.Counter()
    n_complete, n_kills, back, silences, fractions = 0, 0, [], [], []
    one = {NAME: model}
    async with serving(program, one, N_STREAMS, n_threads) as (url, router), clients() as session:
        for _ in range(n_runs):
            await _answers(session, url)
            histories, kills = await _one_run(session, url, router, dice)
            n_kills += kills
            for history in histories:
                # its chunks carry the time of each chunk, which breaks no stream
                found = [item for item in check(history) if item.wrong is not Wrong.IDENTITY]
                n_complete += not found
                kinds["complete" if not found else f"{found[0]}"[:90]] += 1
                silences.append(longest_silence_s(history))
                fractions.append(len(text_times(history)) / N_TOKENS)
            started = time.monotonic()
            back.append((await _answers(session, url)) - started)
    report.row("streams complete", f"{n_complete} of {n_runs * N_STREAMS}")
    report.row("kills", n_kills)
    for kind, count in kinds.most_common():
        report.row(f"ended as: {kind}", count)
    report.row("share of its tokens that a stream got", spread(fractions, ""))
    report.row("longest silence of a stream", spread(silences))
    report.row("until a new request is answered after the run", spread(back))
    return report


async def _one_run(
    session: aiohttp.ClientSession, url: str, router: psutil.Process, dice: random.Random
) -> tuple[list[History], int]:
    """Kills at random numbers of events that clients have; ends when no stream is open."""
    whole = N_STREAMS * N_TOKENS
    marks = sorted(dice.sample(range(whole // 20, whole - whole // 10), N_KILLS))
    n_events, n_kills = 0, 0

    def count(_: History) -> None:
        nonlocal n_events, n_kills
        n_events += 1
        if marks and n_events >= marks[0]:
            del marks[0]
            for child in children(router):
                os.kill(child.pid, signal.SIGKILL)
                n_kills += 1

    histories, waits = [], []
    for number, prompt in enumerate(prompts()):
        sampling = {"seed": number, "temperature": 0.8, "repeat_penalty": 1.1}
        ask = ask_real(prompt, N_TOKENS, model=NAME, **sampling)
        histories.append(begin(f"stream {number}", ask))
        waits.append(pursue(session, url, ask, histories[-1], count))
    await asyncio.gather(*waits)
    return histories, n_kills


def children(router: psutil.Process) -> list[psutil.Process]:
    """The processes that hold its models now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [c for c in router.children() if c.status() != psutil.STATUS_ZOMBIE]
    return []


async def _answers(session: aiohttp.ClientSession, url: str) -> float:
    """When a short request has been answered; asks again until then."""
    ask = Ask("Hello", 2, ask_real("Hello", 2).expected, False, {"model": NAME})
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        history = await pursue(session, url, ask, begin("answers?", ask))
        if history.status == 200 and history.broke is None:
            return time.monotonic()
        await asyncio.sleep(0.02)
    raise AssertionError(f"the peer does not answer: {history.status} {history.body}")


@contextlib.asynccontextmanager
async def serving(
    program: Path,
    models: Mapping[str, Path],
    n_slots: int,
    n_threads: int | None = None,
    *,
    most: int = 1,
) -> AsyncIterator[tuple[str, psutil.Process]]:
    """The router of these models, of which `most` are loaded at a time, and its process. Each has
    room for so many streams at once."""
    with tempfile.TemporaryDirectory(prefix="pe", dir="/tmp") as folder:
        preset = Path(folder) / "models.ini"
        preset.write_text(
            "".join(_section(name, models[name], n_slots, n_threads) for name in models)
        )
        url, process = _start(program, preset, 2 * n_slots * len(models), most)
        router = psutil.Process(process.pid)
        try:
            await _listens(url, process)
            yield url, router
        finally:
            left_behind = router.children(recursive=True)
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, 10)
            for left in (*_alive(left_behind), *([router] if process.poll() is None else [])):
                left.kill()


def _section(name: str, model: Path, n_slots: int, n_threads: int | None) -> str:
    lines = [f"[{name}]", f"model = {model}"]
    lines += [f"ctx-size = {1024 * n_slots}", f"parallel = {n_slots}"]
    lines += [f"threads = {n_threads}"] if n_threads else []
    return "\n".join(lines) + "\n"


def _start(
    program: Path, preset: Path, n_http: int, most: int
) -> tuple[str, subprocess.Popen[bytes]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(program), "--models-preset", str(preset), "--models-max", str(most)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--threads-http", str(n_http)]  # else streams wait for the router's threads
    with preset.with_suffix(".log").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    return f"http://127.0.0.1:{port}", process


def _alive(children: list[psutil.Process]) -> list[psutil.Process]:
    return [child for child in children if child.is_running()]


async def _listens(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{url}/health") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.02)
    raise AssertionError("llama-server does not come up")
