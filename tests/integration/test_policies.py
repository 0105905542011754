"""Routing and batching policies with a real front, real workers and the policies' own processes.

A policy has 50 ms for a prompt. A busy machine may take longer, and then the built-in choice holds.
So a test asks again until the front says that the policy was followed.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.integration.fake_service import ENDLESS, FAKE, WIDE, Reading, complete, fake_text
from tests.service import Service, lives, service, wait_for

POLICY = Path(__file__).parent / "steered_policy.py"
N_TRIES = 40
"""Fewer if six in a row fail: the policy then rests for longer than `wait_for` waits for it."""

CONFIG = """
plugins = [{{ use = "{policy}", timeout_s = 0.3, options = {{ file = "{file}" }} }}]

[models.m]
replicas = 2
"""


class Steered:
    """A front with two workers and a policy, which does what `does` says last."""

    def __init__(self, running: Service, file: Path) -> None:
        self.running = running
        self._file = file

    def does(self, **wish: object) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(wish))
        new.replace(self._file)

    def policy(self) -> dict[str, Any]:
        """The plugin's row of `/stats`."""
        (row,) = self.running.status()["plugins"]
        return dict(row)

    def counts(self) -> dict[str, int]:
        return dict(self.policy()["policy"])

    async def until_asked(self) -> None:
        """Wait until the next prompt is shown to the policy: its process is up, and it is on."""

        def is_asked() -> bool:
            row = self.policy()
            return bool(row["is_ready"] and not row["policy"]["is_off"])

        await asyncio.to_thread(wait_for, is_asked, why="the policy is asked")


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steered]:
    folder = tmp_path_factory.mktemp("policies")
    file, config = folder / "wish.json", folder / "my.toml"
    config.write_text(CONFIG.format(policy=POLICY, file=file))
    file.write_text("{}")
    with service(folder / "run", "--config", str(config), environ=FAKE | WIDE) as running:
        running.wait_all_ready(2)
        yield Steered(running, file)


async def said(session: aiohttp.ClientSession, running: Service, prompt: str) -> None:
    """One request must be answered with its own text."""
    status, body, _ = await complete(session, running.url, prompt)
    assert (status, body["choices"][0]["text"]) == (200, fake_text(prompt, 20))


async def followed(
    session: aiohttp.ClientSession, steered: Steered, workers: list[str]
) -> set[str]:
    """Ask until the policy is followed; the workers that computed that request."""
    steered.does(workers=workers)
    for n in range(N_TRIES):
        await steered.until_asked()
        steered.running.wait_idle()
        before, began = steered.counts(), time.time()
        await said(session, steered.running, f"to {workers}, {n}")
        if steered.counts()["followed"] > before["followed"]:
            return steered.running.stepped_since(began)
    raise AssertionError(f"the policy was never followed: {steered.policy()}")


async def fails(session: aiohttp.ClientSession, steered: Steered, fault: str) -> None:
    """Ask until the policy has failed. The requests are answered all the same."""
    before = steered.counts()["failed"]
    steered.does(fault=fault)
    for n in range(N_TRIES):
        await steered.until_asked()
        prompts = (f"{fault} {n} {number}" for number in range(2))
        await asyncio.gather(*(said(session, steered.running, one) for one in prompts))
        if steered.counts()["failed"] > before:
            return
    raise AssertionError(f"the policy has never failed: {steered.policy()}")


async def test_each_request_is_computed_where_the_policy_says(steered: Steered) -> None:
    async with aiohttp.ClientSession() as session:
        for worker in ("m-1", "m-0", "m-1"):
            assert await followed(session, steered, [worker]) == {worker}


@pytest.mark.parametrize("fault", ["raise", "nonsense", "hang", "die", "flood", "killed"])
async def test_a_policy_that_fails_leaves_the_choice_to_the_front(
    steered: Steered, fault: str
) -> None:
    """Streams that run, and the requests that it was asked for, do not notice."""
    async with aiohttp.ClientSession() as session:
        await followed(session, steered, ["m-1"])
        running = steered.running
        n_asked = steered.counts()["asked"]
        long = Reading(session, running.url, "long", ENDLESS)
        await asyncio.to_thread(wait_for, lambda: steered.counts()["asked"] > n_asked)
        restarts = steered.policy()["counts"]["restarts"]
        if fault == "killed":
            await steered.until_asked()
            _process_of(steered).kill()
        else:
            await fails(session, steered, fault)
        if fault not in {"raise", "nonsense"}:
            await asyncio.to_thread(
                wait_for, lambda: steered.policy()["counts"]["restarts"] > restarts
            )
        steered.does(workers=["m-0"])
        await said(session, running, "while it starts again")
        await long.goes_on()
        await long.leave()
        assert await followed(session, steered, ["m-0"]) == {"m-0"}
    requests = running.status()["requests"]
    assert (requests["failed_total"], requests["rejected_total"]) == (0, 0)


def _process_of(steered: Steered) -> psutil.Process:
    """The process of the policy."""
    children = filter(lives, steered.running.front.children())
    (found,) = [one for one in children if "supervisor.plugins.host" in one.cmdline()]
    return found


async def test_a_short_prompt_that_came_last_is_computed_first(tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_text(f'plugins = ["{POLICY}:ShortestFirst"]\nmax_concurrent_requests = 1\n')
    with service(tmp_path / "run", "--config", str(config), environ=FAKE | WIDE) as running:
        async with aiohttp.ClientSession() as session:
            for n in range(N_TRIES):
                ended, n_followed = await _in_order(session, running, n)
                if n_followed == 2:
                    break
            assert ended == ["short", "long"]


async def _in_order(
    session: aiohttp.ClientSession, running: Service, n: int
) -> tuple[list[str], int]:
    """A long prompt and then a short one come while another sequence has the only slot. The order
    of their ends, and for how many of the two the policy was followed."""
    ended: list[str] = []

    def counts() -> dict[str, int]:
        return dict(running.status()["plugins"][0]["policy"])

    def is_decided(n_prompts: int) -> bool:
        now = counts()
        is_answered = now["asked"] == now["followed"] + now["failed"]
        return is_answered and now["asked"] + now["skipped"] == n_before + n_prompts

    async def asked(name: str, prompt: str) -> None:
        await said(session, running, prompt)
        ended.append(name)

    await asyncio.to_thread(wait_for, lambda: not counts()["is_off"])
    n_before = counts()["asked"] + counts()["skipped"]
    first = asyncio.create_task(complete(session, running.url, f"first {n}", max_tokens=ENDLESS))
    await asyncio.to_thread(wait_for, lambda: is_decided(1))
    await asyncio.to_thread(wait_for, lambda: running.status()["requests"]["running"])
    before, both = counts(), []
    for count, (name, prompt) in enumerate((("long", f"long {n} " * 30), ("short", f"{n}")), 2):
        both.append(asyncio.create_task(asked(name, prompt)))
        await asyncio.to_thread(wait_for, lambda n_prompts=count: is_decided(n_prompts))
    first.cancel()
    await asyncio.gather(*both)
    return ended, counts()["followed"] - before["followed"]
