"""Requests in the form that public clients send, each to a service in real processes.

`bodies` has one file a request: method, path, headers and body as the client named there sends
them, with a content of its own. Answers are read with the SDKs' own types, and held to what that
client needs. The scripted engine keeps to constraints, so that demanded calls and schemas are
checked, too.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.integration.client_needs import NEEDS, Answer
from tests.integration.fake_service import FAKE
from tests.service import Service, service

FOLDER = Path(__file__).parent / "bodies"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("bodies") / "run"
    environ = FAKE | {
        "GPUFC_ALIASES": "local-model",
        "GPUFC_FAKE_SCRIPT": "step_ms=0",
        "GPUFC_N_CTX": "4096",
    }
    with service(folder, environ=environ) as started:
        yield started


def call(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


SAYS = {
    "anth-05-anthropic-python-forced-tool": call("get_weather", '{"city": "Oslo"}'),
    "chat-03-openai-node-stream-forced-tool": call("get_weather", '{"city": "Lima"}'),
    "chat-13-instructor-tools": call("Person", '{"name": "Ann", "age": 31}'),
    "chat-17-pydantic-ai-output-tool": call("final_result", '{"city": "Paris", "people": 2}'),
    "olla-09-format-schema": '{"name": "Ann", "age": 31}',
    "resp-03-home-assistant": '{"on": true, "rooms": []}',
    "resp-07-openai-python-stream-helper": '{"name": "Tom"}',
}
"""What the scripted engine would say in places where the constraint leaves it a choice."""


def directed(body: dict[str, Any], directive: str) -> dict[str, Any]:
    """A body whose last text of a user ends with a directive to the scripted engine."""
    for field in ("prompt", "input"):
        if isinstance(body.get(field), str):
            return body | {field: body[field] + directive}
    turns = [one for one in body.get("messages", body.get("input", ())) if isinstance(one, dict)]
    for turn in reversed([one for one in turns if one.get("role") == "user"]):
        if isinstance(turn["content"], str):
            turn["content"] += directive
        else:
            turn["content"][-1]["text"] += directive
        break
    return body


async def send(running: Service, name: str) -> Answer:
    given = json.loads((FOLDER / f"{name}.json").read_text())
    body = given["body"]
    if body is not None:
        text = SAYS.get(name, "Well, said.")
        body = directed(body, f"[[say:{text}]][[stop@{len(text)}]]")
    data = None if body is None else json.dumps(body)
    async with (
        aiohttp.ClientSession(running.url) as session,
        session.request(
            given["method"],
            given["path"],
            data=data,
            headers=given["headers"],
            allow_redirects=False,
        ) as response,
    ):
        return Answer(response.status, response.headers, await response.read())


REFUSED = {"emb-03-dimensions-single", "resp-05-vscode-copilot-byok-responses"}


def test_each_request_has_its_needs() -> None:
    assert list(NEEDS) == NAMES


@pytest.mark.parametrize("name", NAMES)
async def test_a_client_s_request_gets_what_the_client_needs(running: Service, name: str) -> None:
    answer = await send(running, name)
    assert (answer.status == 200) is (name not in REFUSED), answer.data
    NEEDS[name](answer)
