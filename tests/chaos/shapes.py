"""A bound answer and a forced tool call, killed behind each of their chunks: are they whole?"""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from msgspec import Struct, field

from tests.chaos.report import Report, reporting
from tests.chaos.rig import Rig, rig

MOST_CHUNKS = 400
NEAR = {"exact": 1e-4, "fast": 0.2}
"""How far a log probability may be from the undisturbed one's. A fast replay computes its rows in
batches of other shapes."""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 24},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "colour": {"enum": ["red", "green", "a rather long name of a colour"]},
        "words": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 3},
    },
    "required": ["name", "age", "colour", "words"],
    "additionalProperties": False,
}
NAME = "describe"
COMMON: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Describe a fox by the sea."}],
    "seed": 7,
    "temperature": 0.8,
    "max_tokens": 400,
    "stream": True,
}
ASKED: dict[str, dict[str, Any]] = {
    "JSON schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": NAME, "strict": True, "schema": SCHEMA},
        },
        "logprobs": True,
        "top_logprobs": 2,
    },
    "forced call": {
        "tools": [
            {"type": "function", "function": {"name": NAME, "strict": True, "parameters": SCHEMA}}
        ],
        "tool_choice": {"type": "function", "function": {"name": NAME}},
    },
}


class Answer(Struct):
    """What a stream has brought. `text` is the answer, or the arguments of its call."""

    n_chunks: int = 0
    text: str = ""
    calls: list[str] = field(default_factory=list)
    finish: list[str] = field(default_factory=list)
    spelt: bytes = b""
    logprobs: list[float] = field(default_factory=list)


async def run(model: Path, replay: str) -> Report:
    """Every answer is valid, what was sent stays, and log probabilities belong to their tokens."""
    report = reporting(f"bound answers, {replay} replay: a kill behind each chunk")
    environ = {"GPUFC_REPLAY": replay, "GPUFC_RESTART_LIMIT": "10000", "GPUFC_N_THREADS": "1"}
    async with rig("--model-path", str(model), "--n-ctx", "1024", environ=environ) as one:
        for kind, fields in ASKED.items():
            undisturbed = await _answer(one, fields, None)
            report.wrong += faults(kind, undisturbed, undisturbed, "", replay)
            n_kills = n_equal = 0
            for position in range(1, MOST_CHUNKS):
                sent: list[str] = []
                found = await _answer(one, fields, position, sent.append)
                if not sent:  # the answer was over before
                    break
                n_kills += 1
                n_equal += found.text == undisturbed.text
                wrong = faults(kind, found, undisturbed, sent[0], replay)
                report.wrong += [f"behind chunk {position}: {line}" for line in wrong]
            report.row(f"{kind}: kills, {len(undisturbed.text)} characters", str(n_kills))
            report.row(f"{kind}: equal to the undisturbed answer", f"{n_equal} of {n_kills}")
            if not n_kills:
                report.wrong.append(f"{kind}: nothing was killed")
            if replay == "exact" and n_equal != n_kills:
                report.wrong.append(f"{kind}: exact replay is not exact")
    return report


def faults(kind: str, found: Answer, undisturbed: Answer, sent: str, replay: str) -> list[str]:
    """What is wrong with an answer of which `sent` had come when its worker was killed."""
    wrong = []
    if not found.text.startswith(sent):
        wrong.append(f"{kind}: what was sent has changed")
    try:
        fails = [err.message for err in Draft202012Validator(SCHEMA).iter_errors(_read(found.text))]
    except ValueError as err:
        fails = [str(err)]
    wrong += [f"{kind}: not valid: {fault:.200}" for fault in fails]
    is_call = kind == "forced call"
    if found.calls != ([NAME] if is_call else []):
        wrong.append(f"{kind}: calls of {found.calls}")
    if found.finish != (["tool_calls"] if is_call else ["stop"]):
        wrong.append(f"{kind}: finish reasons {found.finish}")
    if is_call:
        return wrong
    if found.spelt.decode("utf-8", "replace") != found.text:
        wrong.append(f"{kind}: log probabilities are of other tokens")
    if found.text == undisturbed.text:
        pairs = zip(found.logprobs, undisturbed.logprobs, strict=False)
        apart = max((abs(one - other) for one, other in pairs), default=0.0)
        if len(found.logprobs) != len(undisturbed.logprobs) or apart > NEAR[replay]:
            wrong.append(f"{kind}: log probabilities are {apart:.3g} apart")
    return wrong


def _read(text: str) -> Any:
    return json.loads(text)


async def _answer(
    one: Rig,
    fields: dict[str, Any],
    position: int | None,
    killed: Callable[[str], None] = lambda sent: None,
) -> Answer:
    """The whole answer. Its worker is killed behind the chunk of that number, if there is one, and
    `killed` is called with what had come."""
    row = await one.until_ready()
    found, epoch = Answer(), None
    url = f"{one.url}/v1/chat/completions"
    async with one.session.post(url, json=COMMON | fields) as response:
        if response.status != 200:
            raise AssertionError(f"{response.status}: {await response.text()}")
        async for line in response.content:
            data = line.strip().removeprefix(b"data: ")
            if not line.startswith(b"data: ") or data == b"[DONE]":
                continue
            _take(found, json.loads(data))
            if found.n_chunks == position and epoch is None and not found.finish:
                os.kill(row["pid"], signal.SIGKILL)
                epoch = row["epoch"]
                killed(found.text)
    if epoch is not None:  # the answer may have been whole before the front noticed the death
        await one.until_ready(after=epoch)
    return found


def _take(found: Answer, chunk: dict[str, Any]) -> None:
    if "error" in chunk:
        raise AssertionError(str(chunk["error"]))
    for choice in chunk["choices"]:
        delta = choice["delta"]
        found.text += delta.get("content") or ""
        for call in delta.get("tool_calls") or ():
            if call["function"].get("name"):
                found.calls.append(call["function"]["name"])
            found.text += call["function"].get("arguments") or ""
        for one in (choice.get("logprobs") or {}).get("content") or ():
            found.spelt += bytes(one["bytes"])
            found.logprobs.append(one["logprob"])
        if choice.get("finish_reason"):
            found.finish.append(choice["finish_reason"])
    found.n_chunks += 1
