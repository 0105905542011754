"""An agent's session in Claude Code's form, beside llama-server: cached shares and first tokens.

    python -m scripts.lab.agent_session [--llama-server PROGRAM] [--model MODEL.gguf] [--rounds 3]
                                        [--results tests/clients/RESULTS.md]

Without `--llama-server` gpufc is measured alone. Both servers hold the model at the same time and
are asked in turns, so that one computes at a time. A session has 20 tools, and turns of a user's
text or a tool's result. Its first system block changes with each request, as Claude Code's does.
Both servers use a template that writes the tools, which the demo model's own does not.
Each server's own text becomes its history, before a call that is the same for both. A round is one
session with new words.
"""

import argparse
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from supervisor import demo_model
from supervisor.bench.words import WORDS
from tests import machine, results
from tests.bench.servers import Gpufc, LlamaServer, Server, Setting, running

TEMPLATE = """\
{%- set system = messages[0].content if messages[0].role == 'system' else '' -%}
<|im_start|>system
{{ system }}
{%- if tools %}

# Tools
Signatures of functions are within <tools></tools>:
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools>
Return each call within <tool_call></tool_call>:
<tool_call>
{"name": <function-name>, "arguments": <arguments-json-object>}
</tool_call>
{%- endif %}<|im_end|>
{% for message in messages %}
{%- if message.role == 'tool' -%}
<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% elif message.role == 'assistant' -%}
<|im_start|>assistant
{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% elif message.role != 'system' -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""
N_TOOLS = 20
RESULT_WORDS = 60
TOOL_WORDS = 40
RULE_WORDS = 900
TIMEOUT_S = 600
COLUMNS = (
    "turn",
    "server",
    "prompt tokens",
    "cached share at least",
    "first token, ms",
    "median, ms",
)


class Turn(NamedTuple):
    """`first_s` is the time to the first text, `share` the cached part of the prompt."""

    first_s: float
    n_prompt: int
    share: float
    text: str


Played = dict[str, list[list[Turn]]]
"""Each server's turns, by round."""


def text_of(dice: random.Random, n_words: int) -> str:
    return " ".join(dice.choices(WORDS, k=n_words))


def tool(number: int, dice: random.Random, n_words: int) -> dict[str, Any]:
    fields = {
        f"{dice.choice(WORDS)}_{place}": {"type": kind, "description": text_of(dice, n_words // 5)}
        for place, kind in enumerate(("string", "string", "integer", "boolean"))
    }
    return {
        "name": f"Tool{number}",
        "description": text_of(dice, n_words),
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

    def __init__(self, url: str, seed: int, n_tokens: int, size: float) -> None:
        dice = self._dice = random.Random(seed)
        self._url, self._n_tokens = url, n_tokens
        self._rules = text_of(dice, round(size * RULE_WORDS))
        self._tools = [tool(number, dice, round(size * TOOL_WORDS)) for number in range(N_TOOLS)]
        wish = f"<system-reminder>\n{text_of(dice, 60)}\n</system-reminder>"
        parts = [{"type": "text", "text": text} for text in (wish, text_of(dice, 20))]
        self._messages: list[dict[str, Any]] = [{"role": "user", "content": parts}]

    @property
    def opening(self) -> dict[str, Any]:
        """The rules and tools of every request, and the messages so far."""
        return {"rules": self._rules, "tools": self._tools, "messages": self._messages}

    def turn(self, number: int) -> Turn:
        """Ask, and put the answer and the next turn behind the history."""
        began, first_s, usage, pieces = time.monotonic(), 0.0, dict[str, int](), list[str]()
        for event in self._events(number):
            kind = event["type"]
            usage |= event.get("message", event).get("usage", {})
            if kind in ("content_block_delta", "message_delta"):
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


def played(urls: Mapping[str, str], options: argparse.Namespace) -> Played:
    """All turns of all rounds, of each server. The server that is asked first alternates."""
    found: Played = {name: [] for name in urls}
    for seed in range(options.rounds):
        sides = {
            name: Session(url, seed, options.tokens, options.size) for name, url in urls.items()
        }
        for name in sides:
            found[name].append([])
        for number in range(options.turns):
            order = list(sides.items())
            for name, side in order if (seed + number) % 2 else reversed(order):
                turn = side.turn(number)
                found[name][-1].append(turn)
                print(f"# {seed} {number} {name}: {turn}", flush=True)
    return found


def rows(found: Played) -> list[tuple[str, ...]]:
    """One row for each turn and server, and one for each server's turns from the second on. A cell
    of times has each round's in order. Pure."""
    told: list[tuple[str, ...]] = []
    for number in range(len(next(iter(found.values()))[0])):
        for name, rounds in found.items():
            turns = [session[number] for session in rounds]
            times = ", ".join(f"{1e3 * turn.first_s:.0f}" for turn in turns)
            told.append((str(number + 1), name, *_shared(turns), times, _middle(turns)))
    for name, rounds in found.items():
        later = [turn for session in rounds for turn in session[1:]]
        told.append(("from 2", name, *_shared(later), "", _middle(later)))
    return told


def _shared(turns: Sequence[Turn]) -> tuple[str, str]:
    sizes = sorted(turn.n_prompt for turn in turns)
    return f"{sizes[0]} to {sizes[-1]}", f"{min(turn.share for turn in turns):.1%}"


def _middle(turns: Sequence[Turn]) -> str:
    return f"{1e3 * statistics.median(turn.first_s for turn in turns):.0f}"


def ratios(found: Played, ours: str, theirs: str) -> str:
    """Our first token as a share of theirs, turn by turn from the second on."""
    pairs = zip(found[ours], found[theirs], strict=True)
    shares = sorted(
        one.first_s / other.first_s
        for mine, other_s in pairs
        for one, other in zip(mine[1:], other_s[1:], strict=True)
    )
    return f"{statistics.median(shares):.2f} ({shares[0]:.2f} to {shares[-1]:.2f})"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama-server", type=Path, help="else gpufc alone")
    parser.add_argument("--model", type=Path, default=None, help="else the demo model")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--size", type=float, default=1.0, help="share of the rules and tools")
    parser.add_argument("--tokens", type=int, default=24, help="generated in a turn")
    parser.add_argument("--n-ctx", type=int, default=16384)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    conditions = machine.conditions()
    setting = Setting(
        model=options.model or Path(demo_model.find() or "no demo model"),
        n_threads=options.threads,
        n_ctx=options.n_ctx,
        slots=2,
    )
    stack = contextlib.ExitStack()
    template = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "template.jinja"
    template.write_text(TEMPLATE)
    servers: list[Server] = [Gpufc(keys={"aliases": "claude-*", "chat_template": str(template)})]
    if options.llama_server is not None:
        own = ("--jinja", "--chat-template-file", str(template))
        servers.append(LlamaServer(program=options.llama_server, arguments=own))
        version = machine.program_version(options.llama_server)
        conditions |= {"llama-server": version}
    with stack:
        urls = {one.name: stack.enter_context(running(one, setting)).url for one in servers}
        found = played(urls, options)
    table = results.Table(COLUMNS, rows(found))
    for row in table.rows:
        print("|", " | ".join(row), "|")
    title = "agent session" if len(servers) > 1 else "agent session, gpufc alone"
    if len(servers) > 1:
        share = ratios(found, *urls)
        title += f", first token {share} of llama-server's from turn 2"
        print(title)
    if options.results is not None:
        command = results.spelled("python -m scripts.lab.agent_session", arguments)
        run = results.Run(title=title, command=command, conditions=conditions)
        results.append(options.results, run, table)


if __name__ == "__main__":
    main(sys.argv[1:])
