"""One key's flood of requests, as a process of its own: `crowding` times another key beside it.

    python -m tests.chaos.crowd URL N FROM TO TOKENS      # the key comes on standard input

`N` requests are there at once, with prompts of `FROM` to `TO` words, again and again until standard
input ends. A refused one comes again when it is told to. Then the numbers of answers and of
refusals are printed, and the seconds of processor time that asking took.
"""

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator

import aiohttp

from supervisor.bench.words import WORDS

LONG_S = 600.0
Lengths = tuple[int, int]
"""The least and the most words of a prompt."""


def prompt(dice: random.Random, lengths: Lengths) -> str:
    return " ".join(dice.choices(WORDS, k=dice.randint(*lengths)))


class Crowd:
    """`counts` is complete once the block has ended."""

    def __init__(self) -> None:
        self.counts: dict[str, float] = {}


@contextlib.contextmanager
def crowd(url: str, key: str, n: int, lengths: Lengths, n_tokens: int) -> Iterator[Crowd]:
    """The flood from its start to the end of the block."""
    arguments = [url, *map(str, (n, *lengths, n_tokens))]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.crowd", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = Crowd()
    try:
        assert process.stdin is not None
        process.stdin.write(f"{key}\n")
        process.stdin.flush()
        yield found
    finally:
        said, _ = process.communicate(timeout=60)
    found.counts = json.loads(said)


async def _flood(url: str, key: str, n: int, lengths: Lengths, n_tokens: int) -> None:
    counts = {"answers": 0.0, "refusals": 0.0}
    dice = random.Random(n)
    began = time.process_time()

    async def again_and_again(http: aiohttp.ClientSession) -> None:
        while True:
            body = {"prompt": prompt(dice, lengths), "max_tokens": n_tokens, "ignore_eos": True}
            with contextlib.suppress(aiohttp.ClientError):
                async with http.post(f"{url}/v1/completions", json=body) as answer:
                    await answer.read()
                    counts["answers" if answer.status == 200 else "refusals"] += 1
                    await asyncio.sleep(float(answer.headers.get("Retry-After", 0)))

    headers = {"Authorization": f"Bearer {key}"}
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(LONG_S)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as http:
        tasks = [asyncio.create_task(again_and_again(http)) for _ in range(n)]
        await asyncio.to_thread(sys.stdin.read)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    counts["cpu_s"] = time.process_time() - began
    print(json.dumps(counts))


if __name__ == "__main__":
    numbers = [int(each) for each in sys.argv[2:]]
    asyncio.run(
        _flood(
            sys.argv[1], sys.stdin.readline().strip(), numbers[0], tuple(numbers[1:3]), numbers[3]
        )
    )
