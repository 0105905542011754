"""Random combinations of valid fields: each is answered in its shape, or refused by a field's name.

    python -m tests.fuzz.combinations [--n 500] [--seed 1] [--scripted] URL

Each request is sent whole and as a stream, alone and with a seed, so that both answers are one. A
request is made from a seed and its number alone, so a fault can be repeated. `--scripted` is for a
service over the scripted engine: prompts then say what it answers.
"""

import argparse
import asyncio
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import aiohttp
from jsonschema import Draft202012Validator
from msgspec import Struct, field
from openai.types.chat.chat_completion import Choice

from tests.clients.requests.chat_answers import chat
from tests.clients.requests.openai_chat import named, objects, tool
from tests.clients.requests.request import Answer

PATH = "/v1/chat/completions"
WORD = {"type": "string", "maxLength": 6}
SCHEMA = objects(word=WORD, number={"type": "integer", "minimum": 0, "maximum": 99})
LOOK, FIND = tool("look", SCHEMA), tool("find", objects(word=WORD))
STRICT = tool("look", SCHEMA, strict=True)
BARE = tool("now")
CALLED = '<tool_call>\n{"name": "look", "arguments": {"word": "tea", "number": 7}}\n</tool_call>'
SAID = (
    "Well said.",
    "é 中文 🙂 STOP end",
    '{"word": "tea", "number": 3}',
    "<think>I weigh it.</think>Well.",
    "<think>I weigh",
    CALLED,
    f"<think>Hm.</think>Look: {CALLED}\n{CALLED} Done.",
    CALLED[:40],
    "",
)
"""Answers of the scripted engine; the last one is an endless text of its own."""
ASKS = (
    "Name a colour.",
    "Ann is 31. How is Lima?",
    "Count: 1, 2, 3",
    "🙂 und Käse",
    "Say nothing.",
)

VALUES: dict[str, tuple[Any, ...]] = {
    "tools": ([LOOK], [LOOK, FIND], [STRICT], [STRICT, BARE], [BARE], [{"type": "web_search"}], []),
    "tool_choice": (
        *("auto", "none", "required", named("look")),
        *(
            {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named("look")]}}
            for mode in ("auto", "required")
        ),
    ),
    "parallel_tool_calls": (True, False),
    "response_format": (
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}},
        {"type": "json_object", "schema": SCHEMA},
        {"type": "regex", "value": "[a-c]{3}"},
    ),
    "regex": ("[a-c]{3}",),
    "guided_choice": (["yes", "no", "yes and no"],),
    "grammar": ('root ::= [a-z]+ " " [0-9]+',),
    "n": (1, 1, 2, 3),
    "logprobs": (True, True, False),
    "top_logprobs": (0, 2),
    "n_probs": (0, 1),
    "post_sampling_probs": (True, False),
    "stop": ("e", ["STOP", "a "], ["}"], [], ["<tool_call>"], ["\n"], "</think>", ["", "ok"]),
    "include_stop_str_in_output": (True, False),
    "max_tokens": (1, 2, 7, 60, 60.0, 120),
    "max_completion_tokens": (1, 5, 60),
    "min_tokens": (0, 3, 30),
    "ignore_eos": (True, False),
    "stop_token_ids": ([], [101], [46, 32]),
    "temperature": (0, 0.7, 1.5),
    "top_p": (0.5, 1),
    "top_k": (0, 1, 40),
    "min_p": (0, 0.2),
    "mirostat": (0, 2),
    "samplers": (["top_k", "temperature"], "kt"),
    "frequency_penalty": (-1, 1.5),
    "presence_penalty": (0.5,),
    "repeat_penalty": (1.3,),
    "dry_multiplier": (0.8,),
    "xtc_probability": (0.5,),
    "logit_bias": ({}, {"65": 4, "101": -100}, [[101, False]]),
    "reasoning_effort": ("none", "low", "high"),
    "enable_thinking": (True, False),
    "include_reasoning": (True, False),
    "reasoning": ({"exclude": True}, {"effort": "low"}),
    "verbosity": ("low",),
    "prediction": ({"type": "content", "content": "Well said."},),
    "chat_template_kwargs": ({}, {"custom": 1}),
    "user": ("u",),
    "store": (True,),
    "metadata": ({"a": "b"},),
    "service_tier": ("auto",),
}
CONSTRAINTS = ("response_format", "regex", "guided_choice", "grammar")
OFTEN = ("tools", "tool_choice", "response_format", "logprobs", "stop", "max_tokens", "n")
CODES = {"invalid_value", "invalid_grammar"}


def combination(seed: int, number: int, *, scripted: bool) -> dict[str, Any]:
    """The body of that number."""
    rnd = random.Random(f"{seed} {number}")
    body: dict[str, Any] = {"model": "default", "seed": number, "cache_prompt": False}
    body |= {"max_tokens": 60, "messages": _messages(rnd, scripted=scripted)}
    for name, values in VALUES.items():
        if rnd.random() < (0.45 if name in OFTEN else 0.12):
            body[name] = rnd.choice(values)
        elif rnd.random() < 0.1:
            body.setdefault(name, None)
    if rnd.random() < 0.9:  # two constraints are refused
        for name in rnd.sample(CONSTRAINTS, len(CONSTRAINTS) - 1):
            body.pop(name, None)
    names = list(body)
    rnd.shuffle(names)
    return {name: body[name] for name in names}


def _messages(rnd: random.Random, *, scripted: bool) -> list[dict[str, Any]]:
    said = rnd.choice(SAID)
    text = f"{rnd.choice(ASKS)} {rnd.randrange(1000)}"
    if scripted and said:
        text = f"[[say:{said}]][[stop@{len(said)}]] {text}"
    found: list[dict[str, Any]] = [{"role": "user", "content": text}]
    if rnd.random() < 0.2:
        found.insert(0, {"role": "system", "content": "Be brief."})
    if rnd.random() < 0.15:
        found.append({"role": "assistant", "content": "Well,"})
    return found


class Tally(Struct):
    """Answers by status and refusal; the faults by the number of their request."""

    statuses: Counter[str] = field(default_factory=Counter)
    faults: dict[int, list[str]] = field(default_factory=dict)


async def run(url: str, seed: int, numbers: Iterable[int], *, scripted: bool = False) -> Tally:
    """Send these requests, one after another."""
    tally = Tally()
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(120)) as session:
        for number in numbers:
            body = combination(seed, number, scripted=scripted)
            options = {"include_usage": True}
            whole = await _answer(session, body)
            streamed = await _answer(session, body | {"stream": True, "stream_options": options})
            tally.statuses[_told(whole)] += 1
            try:
                wrong = faults(body, whole, streamed)
            except Exception as err:
                wrong = [f"not readable: {type(err).__name__}: {err}"[:600]]
            if wrong:
                tally.faults[number] = wrong
    return tally


async def _answer(session: aiohttp.ClientSession, body: dict[str, Any]) -> Answer:
    async with session.post(PATH, json=body) as response:
        data = await response.read()
        return Answer(response.status, response.headers, data, bool(body.get("stream")))


def _told(answer: Answer) -> str:
    if answer.status == 200:
        return "200"
    error = answer.json["error"]
    return f"{answer.status} {error['param']}: {error['message']}"[:120]


def faults(body: dict[str, Any], whole: Answer, streamed: Answer) -> list[str]:
    """What is wrong with the two answers to a request."""
    if whole.status != 200:
        return _faults_of_refusal(body, whole, streamed)
    if streamed.status != 200:
        return [f"the stream is a {streamed.status}: {streamed.data!r:.300}"]
    choices, joined = chat(whole), chat(streamed)
    usage = whole.json["usage"]
    wrong = _differences(choices, joined)
    if streamed.events[-1].get("usage") != usage:
        wrong.append(f"usage {usage}, in the stream {streamed.events[-1].get('usage')}")
    if [choice.index for choice in choices] != list(range(body.get("n") or 1)):
        wrong.append(f"{len(choices)} choices")
    for choice in choices:
        wrong += _faults_of_choice(body, choice)
    return wrong + _faults_of_usage(body, choices, usage["completion_tokens"])


def _faults_of_refusal(body: dict[str, Any], whole: Answer, streamed: Answer) -> list[str]:
    error = whole.json["error"]
    wrong = []
    if whole.status != 400 or error["code"] not in CODES:
        wrong.append(f"status {whole.status}: {error}")
    if re.split(r"[\[.]", error["param"] or "")[0] not in body:
        wrong.append(f"the refusal names {error['param']}, which was not sent: {error['message']}")
    if streamed.status != whole.status or streamed.json["error"] != error:
        wrong.append(f"the stream is another refusal: {streamed.data!r:.300}")
    return wrong


def _differences(choices: list[Choice], joined: list[Choice]) -> list[str]:
    wrong = []
    for one, other in zip(choices, joined, strict=True):
        told, streamed = (_comparable(choice) for choice in (one, other))
        if told != streamed:
            wrong.append(f"whole {told}, joined {streamed}"[:1500])
    return wrong


def _comparable(choice: Choice) -> dict[str, Any]:
    """A choice without the ids of its calls; a stream begins with an empty text."""
    found = choice.model_dump()
    found["message"]["content"] = found["message"]["content"] or None
    for call in found["message"].get("tool_calls") or ():
        del call["id"]
    if not (found["logprobs"] or {}).get("content"):
        found["logprobs"] = None
    return found


def _faults_of_choice(body: dict[str, Any], choice: Choice) -> list[str]:
    message, wrong = choice.message, []
    called = message.tool_calls or []
    demands = _demands(body)
    is_cut = choice.finish_reason == "length"
    if called and (not body.get("tools") or body.get("tool_choice") == "none"):
        wrong.append("a call without tools")
    if demands and not called and not is_cut and not body.get("stop") and not _ends_early(body):
        wrong.append("no call, which was demanded")
    if demands and message.content:
        wrong.append(f"a text beside a demanded call: {message.content!r}")
    if len(called) > 1 and (demands == "look" or body.get("parallel_tool_calls") is False):
        wrong.append(f"{len(called)} calls")
    if (choice.finish_reason == "tool_calls") != (bool(called) and not is_cut):
        wrong.append(f"finish reason {choice.finish_reason} with {len(called)} calls")
    if hides(body) and getattr(message, "reasoning_content", None):
        wrong.append("the reasoning was to be left out")
    wrong += _faults_of_logprobs(body, choice)
    if not is_cut and not body.get("stop") and not _ends_early(body):
        wrong += [] if called else _faults_of_text(body, message.content or "")
        wrong += _faults_of_arguments([call.model_dump()["function"] for call in called], demands)
    return wrong


def _ends_early(body: dict[str, Any]) -> bool:
    """Whether a token may end an answer in its middle."""
    return bool(body.get("stop_token_ids"))


def hides(body: dict[str, Any]) -> bool:
    excluded = (body.get("reasoning") or {}).get("exclude")
    return bool(excluded) or body.get("include_reasoning") is False


def _demands(body: dict[str, Any]) -> str:
    """The function that must be called; `any` where it is one of several."""
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        if choice["type"] == "function":
            return str(choice["function"]["name"])
        return "any" if choice["allowed_tools"]["mode"] == "required" else ""
    return "any" if choice == "required" else ""


def _faults_of_logprobs(body: dict[str, Any], choice: Choice) -> list[str]:
    wants = body.get("logprobs") or body.get("n_probs")
    content = choice.logprobs.content if choice.logprobs else None
    if not wants:
        return ["log probabilities that were not asked for"] if content else []
    if content is None:
        return ["no log probabilities"]
    most = body.get("top_logprobs" if body.get("logprobs") else "n_probs") or 0
    if any(len(one.top_logprobs) > most for one in content):
        return [f"more than {most} top log probabilities"]
    return []


def _faults_of_text(body: dict[str, Any], text: str) -> list[str]:
    wanted = body.get("response_format") or {}
    schema = wanted.get("schema") or (wanted.get("json_schema") or {}).get("schema")
    if _demands(body):
        return []
    if wanted.get("type") == "json_object" or schema:
        return _invalid(text, schema or {"type": "object"})
    if (expression := body.get("regex") or wanted.get("value")) and isinstance(expression, str):
        return [] if re.fullmatch(expression, text) else [f"{text!r} is not {expression}"]
    if (words := body.get("guided_choice")) and text not in words:
        return [f"{text!r} is not one of {words}"]
    if body.get("grammar") and not re.fullmatch("[a-z]+ [0-9]+", text):
        return [f"{text!r} is not in the grammar"]
    return []


def _faults_of_arguments(called: list[dict[str, Any]], demands: str) -> list[str]:
    if not demands:
        return []
    schemas = {"look": SCHEMA, "find": FIND["function"]["parameters"], "now": {"type": "object"}}
    return [
        wrong
        for one in called
        for wrong in _invalid(one["arguments"], schemas[one["name"]])
    ]  # fmt: skip


def _invalid(text: str, schema: dict[str, Any]) -> list[str]:
    try:
        errors = [*Draft202012Validator(schema).iter_errors(json.loads(text))]
    except ValueError as err:
        return [f"{text!r:.200} is no JSON: {err}"]
    return [f"{text!r:.200}: {error.message:.200}" for error in errors]


def _faults_of_usage(body: dict[str, Any], choices: list[Choice], n_tokens: int) -> list[str]:
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit is None:
        return []
    wrong = []
    if n_tokens > limit * len(choices):
        wrong.append(f"{n_tokens} tokens of at most {limit} each")
    if len(choices) == 1 and choices[0].finish_reason == "length" and n_tokens != limit:
        wrong.append(f"cut at {n_tokens} tokens instead of {limit}")
    n_told = sum(len(one.logprobs.content or ()) for one in choices if one.logprobs)
    if n_told > n_tokens:
        wrong.append(f"{n_told} log probabilities of {n_tokens} tokens")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scripted", action="store_true")
    given = parser.parse_args()
    statuses: Counter[str] = Counter()
    n_faults = 0
    for number in range(given.first, given.first + given.n):
        tally = asyncio.run(run(given.url, given.seed, [number], scripted=given.scripted))
        statuses += tally.statuses
        n_faults += len(tally.faults)
        for line in tally.faults.get(number, ()):
            print(f"{number}: {line}", flush=True)
    for told, n in statuses.most_common():
        print(n, told)
    print(f"{n_faults} of {given.n} with a fault")
    return 1 if n_faults else 0


if __name__ == "__main__":
    sys.exit(main())
