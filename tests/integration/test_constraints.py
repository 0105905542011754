"""Guided answers of a whole service: valid, refused by name, and unchanged by a worker's death."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.integration.fake_service import FAKE, complete, joined, stream
from tests.service import Gains, Service, service

SCHEMA = {
    "type": "object",
    "properties": {"id": {"type": "integer", "maximum": 9}, "ok": {"enum": ["yes", "no"]}},
    "required": ["id", "ok"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "row", "schema": SCHEMA}}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("constraints") / "run"
    with service(folder, environ=FAKE | {"GPUFC_FAKE_SCRIPT": "step_ms=2"}) as started:
        yield started


def is_row(text: str) -> bool:
    row = json.loads(text)
    return set(row) == {"id", "ok"} and row["id"] <= 9 and row["ok"] in ("yes", "no")


async def test_a_worker_killed_at_any_token_changes_nothing_of_the_answer(
    running: Service, tmp_path: Path
) -> None:
    """Forced tokens are computed in one step, so that a kill between them cannot be told apart."""
    n_killed, n_tokens = 0, 24
    async with aiohttp.ClientSession() as session:
        for position in range(n_tokens):
            once = tmp_path / f"kill-{position}"
            fields: dict[str, Any] = {"response_format": FORMAT, "seed": 5, "max_tokens": 60}
            prompt = f"[[kill@{position} once={once}]] row"
            killed = joined(await stream(session, running.url, prompt, **fields))
            assert is_row(killed), killed
            n_killed += once.exists()
            again = joined(await stream(session, running.url, prompt, **fields))
            assert again == killed, position
    assert n_killed >= 4


async def test_other_streams_are_untouched_by_a_refused_constraint(running: Service) -> None:
    gains = Gains(running)
    bombs = [
        {"guided_regex": "(" * 20_000},
        {"guided_regex": "a{1000000000}"},
        {"guided_json": {"type": "array", "uniqueItems": True}},
        {"guided_json": {"allOf": [{"$ref": "#"}, {"type": "object"}]}},
        {"grammar": "root ::= " + "(" * 30_000},
    ]
    async with aiohttp.ClientSession() as session:
        for bomb in bombs:
            status, body, _ = await complete(session, running.url, "bomb", **bomb)
            assert status == 400, body
            assert body["error"]["code"] == "invalid_grammar"
            assert body["error"]["param"] == next(iter(bomb))
        status, body, _ = await complete(
            session, running.url, "row", response_format=FORMAT, seed=5, max_tokens=200
        )
    assert status == 200
    assert is_row(body["choices"][0]["text"])
    assert gains.restarts() == 0


async def test_choices_of_one_request_are_guided_each_for_itself(running: Service) -> None:
    async with aiohttp.ClientSession() as session:
        status, body, _ = await complete(
            session, running.url, "n", n=4, guided_choice=["red", "green", "blue"], max_tokens=20
        )
    assert status == 200
    assert {choice["text"] for choice in body["choices"]} <= {"red", "green", "blue"}
    assert {choice["finish_reason"] for choice in body["choices"]} == {"stop"}
