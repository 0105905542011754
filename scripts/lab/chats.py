"""Chats of several turns on a real front with replicas: the routing strategies side by side.

    python -m scripts.lab.chats --replicas 2 4                     scripted engines
    python -m scripts.lab.chats --replicas 2 --model MODEL.gguf    real ones

Starts a front for each strategy and number of replicas, in turns. Users hold conversations with a
pause between the turns. Prints the share of prompt tokens that were found in a cache, the generated
tokens per second, and the time to the first token.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from scripts.lab.model_swaps import free_port, serving

STRATEGIES = ("least_outstanding", "round_robin", "prefix_affinity")
SCRIPT = "step_ms=8,prefill_us=300"
WORDS = (
    *("sea", "wind", "stone", "river", "cloud", "forest", "bird", "light"),
    *("winter", "road", "house", "garden", "night", "morning"),
)


class Counts:
    def __init__(self) -> None:
        self.prompt = self.cached = self.generated = self.errors = 0
        self.first_s: list[float] = []


async def user(
    session: aiohttp.ClientSession,
    url: str,
    dice: random.Random,
    options: argparse.Namespace,
    until: float,
    counts: Counts,
) -> None:
    await asyncio.sleep(dice.uniform(0.0, options.think_s))
    while time.monotonic() < until:
        subject = dice.randrange(3)
        system = f"Subject {subject}. " + " ".join(
            WORDS[(subject + no) % len(WORDS)] for no in range(options.system)
        )
        messages = [{"role": "system", "content": system}]
        for _ in range(1 + int(dice.expovariate(1.0 / 5.0))):
            if time.monotonic() >= until:
                return
            text = " ".join(dice.choice(WORDS) for _ in range(dice.randrange(10, 50)))
            messages.append({"role": "user", "content": text})
            answer = await turn(session, url, messages, options.tokens, counts)
            messages.append({"role": "assistant", "content": answer})
            await asyncio.sleep(dice.expovariate(1.0 / options.think_s))


async def turn(
    session: aiohttp.ClientSession,
    url: str,
    messages: list[dict[str, str]],
    n_tokens: int,
    counts: Counts,
) -> str:
    body: dict[str, Any] = {
        "messages": messages,
        "max_tokens": n_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "ignore_eos": True,
    }
    began, first_s, pieces = time.monotonic(), None, []
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        if response.status != 200:
            counts.errors += 1
            return ""
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            if usage := chunk.get("usage"):
                counts.prompt += usage["prompt_tokens"]
                counts.cached += usage["prompt_tokens_details"]["cached_tokens"]
                counts.generated += usage["completion_tokens"]
            for choice in chunk.get("choices", ()):
                if content := choice["delta"].get("content"):
                    first_s = first_s or time.monotonic() - began
                    pieces.append(content)
    if first_s is not None:
        counts.first_s.append(first_s)
    return "".join(pieces)


def config_of(options: argparse.Namespace, replicas: int, strategy: str, folder: Path) -> Path:
    path = folder / "gpufc.toml"
    engine = f'model_path = "{options.model}"' if options.model else f'fake_script = "{SCRIPT}"'
    backend = "" if options.model else 'backend = "fake"'
    path.write_text(
        f'routing = "{strategy}"\nmax_concurrent_requests = {options.slots}\n'
        f'standby = "none"\n[models.chat]\n{engine}\n{backend}\n'
        f"n_ctx = {options.n_ctx}\nreplicas = {replicas}\n"
        + (f"n_threads = {options.threads}\n" if options.threads else "")
    )
    return path


async def measure(options: argparse.Namespace, replicas: int, strategy: str, seed: int) -> Counts:
    counts = Counts()
    with tempfile.TemporaryDirectory(prefix="ch", dir="/tmp") as name:
        folder, port = Path(name), free_port()
        command = [
            *(sys.executable, "-m", "supervisor.cli", "start", "--port", str(port)),
            *("--config", str(config_of(options, replicas, strategy, folder))),
            *("--runtime-dir", str(folder / "run")),
        ]
        timeout = aiohttp.ClientTimeout(total=300)
        async with (
            serving(command, port, Path(options.log)) as url,
            aiohttp.ClientSession(timeout=timeout) as session,
        ):
            await ready(session, url, replicas)
            until = time.monotonic() + options.seconds
            async with asyncio.TaskGroup() as group:
                for number in range(options.users * replicas):
                    dice = random.Random(1000 * seed + number)
                    group.create_task(user(session, url, dice, options, until, counts))
    return counts


async def ready(session: aiohttp.ClientSession, url: str, replicas: int) -> None:
    """Wait until so many workers are ready."""
    for _ in range(600):
        async with session.get(f"{url}/stats") as response:
            stats = await response.json()
        if sum(worker["state"] == "ready" for worker in stats["workers"]) >= replicas:
            return
        await asyncio.sleep(0.1)
    raise TimeoutError(f"{replicas} workers are not ready")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, nargs="+", default=[2])
    parser.add_argument("--model", default="", help="a GGUF file; else the scripted engine")
    parser.add_argument("--users", type=int, default=6, help="for each replica")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--turns", type=int, default=1, help="runs of each strategy")
    parser.add_argument("--think-s", type=float, default=0.5)
    parser.add_argument("--system", type=int, default=150, help="words of a system prompt")
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--slots", type=int, default=6)
    parser.add_argument("--n-ctx", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--log", default="/dev/null")
    options = parser.parse_args()
    print("| replicas | strategy | cached share | tok/s | first token p50 | p95 | errors |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for replicas in options.replicas:
        found: dict[str, list[Counts]] = {strategy: [] for strategy in STRATEGIES}
        for seed in range(options.turns):
            for strategy in STRATEGIES:
                found[strategy].append(asyncio.run(measure(options, replicas, strategy, seed)))
        for strategy, runs in found.items():
            times = sorted(one for run in runs for one in run.first_s)
            cached = sum(run.cached for run in runs) / max(1, sum(run.prompt for run in runs))
            rate = sum(run.generated for run in runs) / (options.seconds * len(runs))
            print(
                f"| {replicas} | {strategy} | {cached:.0%} | {rate:.0f}"
                f" | {statistics.median(times):.2f} s | {times[int(0.95 * len(times))]:.2f} s"
                f" | {sum(run.errors for run in runs)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
