"""Ollama's client for JavaScript, as npm has it, at a service over the scripted engine."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fake_service import FAKE
from tests.service import Service, service

pytestmark = pytest.mark.slow

CALL = '<tool_call>{"name": "lookup", "arguments": {"word": "tea"}}</tool_call>'
SCRIPT = """
import { Ollama } from "ollama";

const client = new Ollama({ host: process.argv[2] });
const call = process.argv[3];
const model = "fake:latest";
const asked = {
  model,
  messages: [{ role: "user", content: `[[say:Look.${call}]][[stop@${5 + call.length}]]` }],
  tools: [{ type: "function", function: { name: "lookup", parameters: { type: "object" } } }],
};
const whole = await client.chat(asked);
const lines = [];
for await (const line of await client.chat({ ...asked, stream: true })) lines.push(line);
const raw = { model, prompt: "hello", raw: true, options: { num_predict: 8 } };
const generated = await client.generate(raw);
const pieces = [];
for await (const piece of await client.generate({ ...raw, stream: true })) pieces.push(piece);
const states = [];
for await (const state of await client.pull({ model, stream: true })) states.push(state.status);
const { models } = await client.list();
const shown = await client.show({ model });
const loaded = await client.chat({ model, messages: [] });
const refusals = [];
for (const refused of [
  () => client.chat({ ...asked, model: "other" }),
  () => client.delete({ model }),
]) {
  try {
    await refused();
  } catch (error) {
    refusals.push({ status: error.status_code, text: error.error });
  }
}
console.log(
  JSON.stringify({ whole, lines, generated, pieces, states, models, shown, loaded, refusals }),
);
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("javascript") / "run", environ=FAKE) as started:
        yield started


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client and the script."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.fail("npm is not installed")
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    (folder / "main.js").write_text(SCRIPT)
    install = [npm, "install", "--no-audit", "--no-fund", "ollama"]
    subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=240)
    return folder


def test_the_client_reads_chats_generations_models_and_errors(
    running: Service, project: Path
) -> None:
    node = [shutil.which("node") or "node", "main.js", running.url, CALL]
    done = subprocess.run(node, cwd=project, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    message, lines = found["whole"]["message"], found["lines"]
    assert message["content"] == "".join(line["message"]["content"] for line in lines) == "Look."
    for calls in (
        message["tool_calls"],
        [call for line in lines for call in line["message"].get("tool_calls", [])],
    ):
        assert [call["function"]["arguments"] for call in calls] == [{"word": "tea"}]
    assert lines[-1]["done"] is True
    assert "".join(piece["response"] for piece in found["pieces"]) == found["generated"]["response"]
    assert found["states"][-1] == "success"
    assert [model["name"] for model in found["models"]] == ["fake:latest"]
    assert "tools" in found["shown"]["capabilities"]
    assert found["loaded"]["done_reason"] == "load"
    assert [refused["status"] for refused in found["refusals"]] == [404, 501]
    assert found["refusals"][0]["text"] == "model 'other' not found"
