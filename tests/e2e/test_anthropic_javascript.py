"""Messages by clients that npm has, over the scripted engine: Anthropic's and Vercel's AI SDK."""

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
ANTHROPIC = """
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const call = process.argv[3];
const asked = {
  model: "claude-x",
  max_tokens: 200,
  system: "Be kind.",
  messages: [{ role: "user", content: `[[say:Look.${call}]][[stop@${5 + call.length}]]` }],
  tools: [{ name: "lookup", input_schema: { type: "object" } }],
};
const whole = await client.messages.create(asked);
const events = [];
const stream = client.messages.stream(asked).on("streamEvent", (event) => events.push(event.type));
const streamed = await stream.finalMessage();
const { input_tokens } = await client.messages.countTokens({ ...asked, max_tokens: undefined });
const models = [];
for await (const model of client.models.list()) models.push(model.id);
let refused = null;
try {
  await client.messages.create({ ...asked, model: "other" });
} catch (error) {
  refused = { status: error.status, type: error.error.error.type, id: error.requestID };
}
console.log(JSON.stringify({ whole, streamed, events, input_tokens, models, refused }));
"""

AI = """
import { createAnthropic } from "@ai-sdk/anthropic";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

const anthropic = createAnthropic({ baseURL: `${process.argv[2]}/v1`, apiKey: "none" });
const call = process.argv[3];
const asked = {
  model: anthropic("claude-x"),
  system: "Be kind.",
  prompt: `[[say:Look.${call}]][[stop@${5 + call.length}]]`,
  tools: {
    lookup: tool({
      inputSchema: jsonSchema({ type: "object", properties: { word: { type: "string" } } }),
      execute: async () => "[[stop@5]]",
    }),
  },
  maxOutputTokens: 200,
  maxRetries: 0,
  stopWhen: stepCountIs(2),
};
const seen = ({ text, finishReason, toolCalls, usage }) => ({
  text,
  reason: finishReason,
  calls: toolCalls.map((one) => one.input),
  cached: usage.cachedInputTokens,
});
const whole = (await generateText(asked)).steps.map(seen);
const streamed = (await streamText(asked).steps).map(seen);
console.log(JSON.stringify({ whole, streamed }));
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("typescript") / "run"
    with service(folder, environ=FAKE | {"GPUFC_ALIASES": "claude-*"}) as started:
        yield started


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the clients and the scripts."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.fail("npm is not installed")
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    (folder / "anthropic.js").write_text(ANTHROPIC)
    (folder / "ai.js").write_text(AI)
    packages = ["@anthropic-ai/sdk", "@ai-sdk/anthropic", "ai"]
    install = [npm, "install", "--no-audit", "--no-fund", *packages]
    subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=240)
    return folder


def printed(project: Path, script: str, running: Service) -> dict[str, Any]:
    """The document that a script prints."""
    node = [shutil.which("node") or "node", script, running.url, CALL]
    done = subprocess.run(node, cwd=project, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_anthropic_s_client_reads_messages_streams_counts_models_and_errors(
    running: Service, project: Path
) -> None:
    found = printed(project, "anthropic.js", running)
    whole, streamed = found["whole"], found["streamed"]
    text = {"type": "text", "text": "Look.", "citations": []}
    assert streamed["content"][0] == whole["content"][0] == text
    for message in (whole, streamed):
        assert message["stop_reason"] == "tool_use"
        assert message["content"][1]["input"] == {"word": "tea"}
        read = message["usage"]["cache_read_input_tokens"]
        assert message["usage"]["input_tokens"] + read == found["input_tokens"]
    assert found["events"][0] == "message_start"
    assert found["events"][-1] == "message_stop"
    assert found["models"] == ["fake"]
    assert (found["refused"]["status"], found["refused"]["type"]) == (404, "not_found_error")
    assert found["refused"]["id"]


def test_vercel_s_sdk_calls_a_tool_and_goes_on(running: Service, project: Path) -> None:
    found = printed(project, "ai.js", running)
    for first, second in (found["whole"], found["streamed"]):
        assert (first["text"], first["reason"]) == ("Look.", "tool-calls")
        assert first["calls"] == [{"word": "tea"}]
        assert (second["text"], second["reason"], second["calls"]) == ("Look.", "stop", [])
        assert second["cached"] > 0
