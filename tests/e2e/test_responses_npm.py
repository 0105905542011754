"""Responses by clients that npm has, over the scripted engine: OpenAI's and Vercel's AI SDK."""

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
SAID = f"<think>Hm.</think>Look. {CALL}"
PROMPT = f"[[say:{SAID}]][[stop@{len(SAID)}]]"

OPENAI = """
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none", maxRetries: 0 });
const asked = {
  model: "default",
  input: process.argv[3],
  tools: [{ type: "function", name: "lookup", strict: false, parameters: { type: "object" } }],
};
const whole = await client.responses.create(asked);
let text = "";
const stream = client.responses.stream(asked);
for await (const event of stream) {
  if (event.type === "response.output_text.delta") text += event.delta;
}
const streamed = await stream.finalResponse();
const items = [];
for await (const item of client.responses.inputItems.list(streamed.id)) items.push(item.type);
let refused = null;
try {
  await client.responses.create({ ...asked, previous_response_id: "resp_0" });
} catch (error) {
  refused = { status: error.status, code: error.code };
}
console.log(JSON.stringify({ whole, streamed, text, items, refused }));
"""

AI = """
import { createOpenAI } from "@ai-sdk/openai";
import { stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const openai = createOpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none" });
const lookup = tool({
  description: "Looks a word up",
  inputSchema: z.object({ word: z.string() }),
  execute: async ({ word }) => `${word} is hot`,
});
const runs = [];
for (const store of [true, false]) {
  const include = store ? [] : ["reasoning.encrypted_content"];
  const errors = [];
  const result = streamText({
    model: openai.responses("default"),
    prompt: process.argv[3],
    tools: { lookup },
    stopWhen: stepCountIs(2),
    providerOptions: { openai: { store, include } },
    onError: ({ error }) => errors.push(String(error)),
  });
  const steps = (await result.steps).map((step) => ({
    text: step.text,
    reasoning: step.reasoningText,
    results: step.toolResults.map((one) => one.output),
    reason: step.finishReason,
    sent: step.request.body.input.map((item) => item.type ?? item.role),
    input: step.usage.inputTokens,
  }));
  runs.push({ errors, steps });
}
console.log(JSON.stringify(runs));
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("responses-npm") / "run"
    with service(folder, environ=FAKE) as started:
        yield started


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the clients and the scripts."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.fail("npm is not installed")
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    (folder / "openai.js").write_text(OPENAI)
    (folder / "ai.js").write_text(AI)
    packages = ["openai", "ai", "@ai-sdk/openai", "zod"]
    install = [npm, "install", "--no-audit", "--no-fund", *packages]
    subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=240)
    return folder


def printed(project: Path, script: str, running: Service) -> Any:
    """The document that a script prints."""
    node = [shutil.which("node") or "node", script, running.url, PROMPT]
    done = subprocess.run(node, cwd=project, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1])


def test_openai_s_client_reads_responses_streams_lists_and_errors(
    running: Service, project: Path
) -> None:
    found = printed(project, "openai.js", running)
    for response in (found["whole"], found["streamed"]):
        thought, message, call = response["output"]
        assert thought["summary"][0]["text"] == "Hm."
        assert message["content"][0]["text"] == response["output_text"] == found["text"] == "Look."
        assert json.loads(call["arguments"]) == {"word": "tea"}
    assert found["items"] == ["message"]
    assert found["refused"] == {"status": 400, "code": "previous_response_not_found"}


def test_vercel_s_sdk_goes_on_by_references_or_by_items(running: Service, project: Path) -> None:
    stored, unstored = printed(project, "ai.js", running)
    for run in (stored, unstored):
        assert run["errors"] == []
        for step in run["steps"]:
            assert (step["text"], step["reasoning"]) == ("Look.", "Hm.")
            assert (step["results"], step["reason"]) == (["tea is hot"], "tool-calls")
    references = ["user", "item_reference", "item_reference", "function_call"]
    assert stored["steps"][1]["sent"] == [*references, "function_call_output"]
    items = ["user", "reasoning", "assistant", "function_call"]
    assert unstored["steps"][1]["sent"] == [*items, "function_call_output"]
    # the same conversation, in either form
    assert stored["steps"][1]["input"] == unstored["steps"][1]["input"]
