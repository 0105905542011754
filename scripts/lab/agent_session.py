"""An agent's session in Claude Code's form, beside llama-server: cached shares and first tokens.

    python -m scripts.lab.agent_session --llama-server PROGRAM [--model MODEL.gguf] [--rounds 3]

Both servers hold the model at the same time and are asked in turns, so that one computes at a time.
A session has 20 tools, and turns of a user's text or a tool's result. Its first system block
changes with each request, as Claude Code's does. Each server's own text becomes its history,
before a call that is the same for both. A round is one session with new words.
"""

import argparse
import json
import random
import statistics
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from supervisor import demo_model
from supervisor.bench.words import WORDS
from tests.bench.servers import Gpufc, LlamaServer, Setting, running

N_TOOLS = 20
RULE_WORDS = 900
RESULT_WORDS = 60
TIMEOUT_S = 300


class Turn(NamedTuple):
    """`first_s` is the time to the first content, `share` the cached part of the prompt."""

    first_s: float
    n_prompt: int
    share: float
    text: str


def text_of(dice: random.Random, n_words: int) -> str:
    return " ".join(dice.choices(WORDS, k=n_words))


def tool(number: int, dice: random.Random) -> dict[str, Any]:
    fields = {
        f"{dice.choice(WORDS)}_{place}": {"type": kind, "description": text_of(dice, 8)}
        for place, kind in enumerate(("string", "string", "integer", "boolean"))
    }
    return {
        "name": f"Tool{number}",
        "description": text_of(dice, 40),
        "input_schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": fields,
            "required": list(fields)[:2],
            "additionalProperties": False,
        },
    }


class Session:
    """One server's side of a session. Both sides of a round are made with the same `seed`."""

    def __init__(self, url: str, seed: int, n_tokens: int) -> None:
        dice = self._dice = random.Random(seed)
        self._url, self._n_tokens = url, n_tokens
        self._rules = text_of(dice, RULE_WORDS)
        self._tools = [tool(number, dice) for number in range(N_TOOLS)]
        wish = f"<system-reminder>\n{text_of(dice, 60)}\n</system-reminder>"
        parts = [{"type": "text", "text": text} for text in (wish, text_of(dice, 20))]
        self._messages: list[dict[str, Any]] = [{"role": "user", "content": parts}]

    def turn(self, number: int) -> Turn:
        """Ask, and put the answer and the next turn behind the history."""
        began, first_s, usage, pieces = time.monotonic(), 0.0, dict[str, int](), list[str]()
        for event in self._events(number):
            kind = event["type"]
            usage |= event.get("message", event).get("usage", {})
            if kind.startswith("content_block") or kind == "message_delta":
                first_s = first_s or time.monotonic() - began
            pieces.append(event.get("delta", {}).get("text", ""))
        text = "".join(pieces)
        call = {"type": "tool_use", "id": f"toolu_{number:08}", "name": f"Tool{number % N_TOOLS}"}
        said = [{"type": "text", "text": text}] if text.strip() else []
        self._messages += [
            {"role": "assistant", "content": [*said, {**call, "input": {"at": number}}]},
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": call["id"],
                        "content": text_of(self._dice, RESULT_WORDS),
                    }
                ],
            },
        ]
        cached = usage.get("cache_read_input_tokens") or 0
        n_prompt = usage["input_tokens"] + cached
        return Turn(first_s, n_prompt, cached / n_prompt, text)

    def _events(self, number: int) -> Iterator[dict[str, Any]]:
        billing = f"x-anthropic-billing-header: cc_version=2.1; cch={number:05x};"
        kept = {"cache_control": {"type": "ephemeral"}}
        body = {
            "model": "claude-x",
            "max_tokens": self._n_tokens,
            "stream": True,
            "temperature": 0,
            "system": [
                {"type": "text", "text": billing},
                {"type": "text", "text": "You are an agent for code.", **kept},
                {"type": "text", "text": self._rules, **kept},
            ],
            "messages": self._messages,
            "tools": self._tools,
            "metadata": {"user_id": "{}"},
        }
        request = urllib.request.Request(
            f"{self._url}/v1/messages?beta=true",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "anthropic-version": "2023-06-01"},
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            for line in answer:
                if line.startswith(b"data: {"):
                    yield json.loads(line[6:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama-server", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=None, help="else the demo model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=24, help="generated in a turn")
    parser.add_argument("--n-ctx", type=int, default=16384)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    setting = Setting(
        model=options.model or Path(demo_model.find()),
        n_threads=options.threads,
        n_ctx=options.n_ctx,
        slots=2,
    )
    servers = (
        Gpufc(keys={"aliases": "claude-*"}),
        LlamaServer(program=options.llama_server, arguments=("--jinja",)),
    )
    found: dict[str, list[list[Turn]]] = {server.name: [] for server in servers}
    with running(servers[0], setting) as ours, running(servers[1], setting) as theirs:
        urls = {servers[0].name: ours.url, servers[1].name: theirs.url}
        for seed in range(options.rounds):
            sides = {name: Session(url, seed, options.tokens) for name, url in urls.items()}
            for name in sides:
                found[name].append([])
            for number in range(options.turns):
                order = list(sides.items())
                for name, side in order if (seed + number) % 2 else reversed(order):
                    turn = side.turn(number)
                    found[name][-1].append(turn)
                    print(f"# {seed} {number} {name}: {turn}", flush=True)
    print("| turn | server | prompt tokens | cached share |  first content, ms | median |")
    print("| --- | --- | --- | --- | --- | --- |")
    for number in range(options.turns):
        for name, rounds in found.items():
            turns = [session[number] for session in rounds]
            times = [1e3 * turn.first_s for turn in turns]
            cells = (
                *(str(number + 1), name, str(turns[0].n_prompt)),
                f"{min(turn.share for turn in turns):.1%}",
                ", ".join(f"{one:.0f}" for one in times),
                f"{statistics.median(times):.0f}",
            )
            print("|", " | ".join(cells), "|")
    for name, rounds in found.items():
        later = [turn for session in rounds for turn in session[1:]]
        least, middle = min(x.share for x in later), statistics.median(x.first_s for x in later)
        print(f"{name}, from turn 2: cached share at least {least:.1%}", end=", ")
        print(f"first content {1e3 * middle:.0f} ms (median)")


if __name__ == "__main__":
    main()
