"""Log probabilities of a whole service: the same list when the worker dies at any token.

The scripted engine's rows have one likely token, which depends on all tokens before it: an entry of
another row would show another best token.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.integration.fake_service import FAKE, complete, joined, stream
from tests.service import Service, service

N_TOKENS = 12
Lists = dict[str, list[Any]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("logprobs") / "run"
    with service(folder, environ=FAKE | {"GPUFC_FAKE_SCRIPT": "step_ms=1"}) as started:
        yield started


def lists(events: list[str]) -> Lists:
    """The chunks' lists joined."""
    found: Lists = {}
    for event in events[:-1]:
        for choice in json.loads(event)["choices"]:
            for name, values in (choice["logprobs"] or {}).items():
                found.setdefault(name, []).extend(values)
    return found


FIELDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stop": {"stop": ["ef"]},
    "constrained": {"guided_regex": "[a-f]{12}", "seed": 3},
    "echo": {"echo": True},
}


async def check_killed(running: Service, tmp_path: Path, position: int, **fields: Any) -> None:
    """A stream whose worker dies at a token is the whole answer of a request without a fault."""
    fields = {"logprobs": 2, "max_tokens": N_TOKENS, **fields}
    once = tmp_path / f"kill-{position}"
    prompt = f"[[say:abcdé🙂ef]][[kill@{position} once={once}]]"
    async with aiohttp.ClientSession() as session:
        events = await stream(session, running.url, prompt, **fields)
        was_killed = once.exists()
        once.touch()
        status, whole, _ = await complete(session, running.url, prompt, **fields)
    (choice,) = whole["choices"]
    assert (status, joined(events)) == (200, choice["text"])
    assert lists(events) == choice["logprobs"]
    n_generated = whole["usage"]["completion_tokens"]
    assert was_killed is (position < n_generated)


@pytest.mark.parametrize("position", [0, 5])
async def test_a_killed_worker_changes_no_log_probability(
    running: Service, tmp_path: Path, position: int
) -> None:
    """Position 5 is inside a character."""
    await check_killed(running, tmp_path, position, echo=True)


@pytest.mark.slow
@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
async def test_a_worker_killed_at_any_token_changes_no_log_probability(
    running: Service, tmp_path: Path, fields: dict[str, Any]
) -> None:
    for position in range(N_TOKENS):
        await check_killed(running, tmp_path, position, **fields)


async def test_the_bytes_of_a_chat_s_entries_are_those_of_its_content(running: Service) -> None:
    body = {
        "messages": [{"role": "user", "content": "[[say:aé🙂 b]]"}],
        "logprobs": True,
        "max_tokens": N_TOKENS,
    }
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{running.url}/v1/chat/completions", json=body) as response,
    ):
        (choice,) = (await response.json())["choices"]
    content = choice["logprobs"]["content"]
    assert len(content) == N_TOKENS
    found = b"".join(bytes(entry["bytes"]) for entry in content)
    assert found.decode() == choice["message"]["content"]
