"""What a service answers: over kills with exact replays, and over swaps to all models and back."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from gpufc.config import KvUnified, Replay
from tests.integration.commands import command
from tests.models.making import made
from tests.models.runs import some_tokens
from tests.models.table.alone import Alone
from tests.models.table.judging import (
    Cell,
    Compared,
    Verdict,
    all_right,
    cell,
    compared,
    repeated,
)
from tests.service import Service, service

N_TOKENS = 48
N_STREAMED = 3500
"""Long enough that a worker dies, or is replaced, in the middle of a stream."""
N_CTX = 4096
KILLED_AFTER = (20, 200)
"""Events of a stream at which its worker is killed."""
PROMPT = some_tokens(120, 21)
ENVIRON = {"GPUFC_N_THREADS": "1", "GPUFC_SPECULATION": "none"}


@contextmanager
def serving(
    folder: Path, name: str, layout: KvUnified, replay: Replay = Replay.EXACT
) -> Iterator[Service]:
    """A service of one tiny model. With exact replays it shares no prefix."""
    arguments = ("--model-path", str(made(name)), "--n-ctx", str(N_CTX))
    environ = {**ENVIRON, "GPUFC_KV_UNIFIED": layout.value, "GPUFC_REPLAY": replay.value}
    with service(folder, *arguments, environ=environ) as running:
        yield running


async def answer(url: str, prompt: Sequence[int], n_tokens: int, **fields: Any) -> list[int]:
    """The greedy tokens of one request."""
    body = {**_body(prompt, n_tokens), **fields}
    async with aiohttp.request("POST", f"{url}/completion", json=body) as response:
        found = await response.json()
    return list(found["tokens"])


async def streamed(
    url: str, prompt: Sequence[int], n_tokens: int, seen: Callable[[int], None] = lambda _: None
) -> list[int]:
    """The tokens of a stream that no end token ends; `seen` is told the number of each event."""
    body = _body(prompt, n_tokens) | {"stream": True, "ignore_eos": True}
    limit = aiohttp.ClientTimeout(total=300)
    async with aiohttp.request("POST", f"{url}/completion", json=body, timeout=limit) as response:
        n_events = 0
        async for line in response.content:
            if not line.startswith(b"data: "):
                continue
            n_events += 1
            seen(n_events)
            event = json.loads(line[6:])
            if event.get("stop"):
                return list(event["tokens"])
    return []


def _body(prompt: Sequence[int], n_tokens: int) -> dict[str, Any]:
    fixed = {"temperature": 0, "return_tokens": True, "cache_prompt": False}
    return {"prompt": list(prompt), "n_predict": n_tokens, **fixed}


async def killed(folder: Path, name: str, layout: KvUnified) -> Cell:
    """A stream whose worker is killed twice, beside the undisturbed one."""
    with serving(folder, name, layout) as running:
        undisturbed = await streamed(running.url, PROMPT, N_STREAMED)
        before = running.status()["requests"]["replayed_total"]

        def strike(n_events: int) -> None:
            if n_events in KILLED_AFTER:
                os.kill(running.worker()["pid"], signal.SIGKILL)

        tokens = await streamed(running.url, PROMPT, N_STREAMED, strike)
        n_replays = running.status()["requests"]["replayed_total"] - before
    told = repeated(tokens, undisturbed)
    return told.also(f"{n_replays} replays", is_right=n_replays == len(KILLED_AFTER))


class Swaps:
    """One service that serves all models in turn, and then again in the opposite order."""

    def __init__(self, names: Sequence[str], alones: Callable[[str], Alone]) -> None:
        self._names, self._alones = names, alones
        self._found: dict[str, list[Compared]] = {name: [] for name in names}
        self._over: dict[str, list[Cell]] = {name: [] for name in names}
        self._n_open = dict.fromkeys(names, 0)
        """Streams that went on when the next model served already."""

    async def run(self, folder: Path, layout: KvUnified) -> dict[str, tuple[Cell, Cell]]:
        """For each model: its answers after each load, and its streams over swaps to another."""
        order = [*self._names, *reversed(self._names[:-1])]
        with serving(folder, order[0], layout) as running:
            for name, following in zip(order, [*order[1:], None], strict=True):
                await self._answered(running, name)
                if following is not None:
                    self._over[name].append(await self._swapped(running, name, following))
        return {name: (cell(self._found[name]), self._streams(name)) for name in self._names}

    async def _answered(self, running: Service, name: str) -> None:
        prompt = some_tokens(60, 22)
        tokens = await answer(running.url, prompt, N_TOKENS)
        alone = self._alones(name)
        wanted = alone.wanted(prompt, N_TOKENS)
        self._found[name].append(compared(prompt, tokens, wanted, alone.moved))

    async def _swapped(self, running: Service, name: str, following: str) -> Cell:
        undisturbed = await streamed(running.url, PROMPT, N_STREAMED)
        begun = asyncio.Event()
        stream = asyncio.create_task(
            streamed(running.url, PROMPT, N_STREAMED, lambda _: begun.set())
        )
        await begun.wait()
        code, said = await command(running, "swap", str(made(following)))
        if code:
            return Cell(Verdict.WRONG, f"swap ended with {code}: {said[-200:]}")
        self._n_open[name] += not stream.done()
        return repeated(await stream, undisturbed)

    def _streams(self, name: str) -> Cell:
        found = self._over[name]
        return all_right(found, "streams").also(f"{self._n_open[name]} open at its end")
